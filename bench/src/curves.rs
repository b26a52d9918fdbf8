//! The picture of `xlvs-bench latency`: a panel for each load, a curve for each case. To the right go the quantiles, each nine
//! as wide as the one before it, and up the delays, by powers of ten.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

const PANEL: (u32, u32) = (640, 480);
const COLOURS: [RGBColor; 5] = [
    RGBColor(127, 127, 127),
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
];
/// From the median to 99.99 %, in nines.
const FIRST: f64 = 0.301;
const LAST: f64 = 4.0;
const STEP: f64 = 0.05;

/// One curve.
pub(crate) struct Curve<'d> {
    pub(crate) panel: String,
    pub(crate) name: &'static str,
    /// In nanoseconds.
    pub(crate) delays: &'d Histogram<u64>,
}

/// Draws the curves into an SVG file.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn draw(file: &Path, curves: &[Curve<'_>]) -> Result<(), String> {
    let mut panels: Vec<&str> = curves.iter().map(|curve| curve.panel.as_str()).collect();
    panels.dedup();
    let size = (PANEL.0 * panels.len().max(1) as u32, PANEL.1);
    let failed = |error: &dyn std::error::Error| format!("{} can't be drawn: {error}", file.display());
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(|curve| points(curve.delays)).collect();
    let delays = || points.iter().flatten().map(|point| point.1);
    let (least, most) = (delays().fold(f64::MAX, f64::min), delays().fold(0.0, f64::max));

    let root = SVGBackend::new(file, size).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let areas = root.split_evenly((1, panels.len().max(1)));
    for (area, panel) in areas.iter().zip(&panels) {
        let mut chart = ChartBuilder::on(area)
            .caption(panel, ("sans-serif", 20))
            .margin(12)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(FIRST..LAST, (least * 0.8..most * 1.25).log_scale())
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_labels(5)
            .x_label_formatter(&|nines| quantile_name(*nines))
            .y_label_formatter(&|us| format!("{us}"))
            .x_desc("share of the frames")
            .y_desc("one-way delay, µs")
            .light_line_style(WHITE.mix(0.0))
            .draw()
            .map_err(|error| failed(&error))?;
        let own = curves.iter().zip(&points).filter(|(curve, _)| curve.panel == *panel);
        for ((curve, points), colour) in own.zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
                .map_err(|error| failed(&error))?
                .label(curve.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))
}

/// Delays in microseconds over quantiles in nines.
fn points(delays: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = ((LAST - FIRST) / STEP) as u32 + 1;
    (0..=steps)
        .map(|step| (FIRST + f64::from(step) * STEP).min(LAST))
        .map(|nines| (nines, delays.value_at_quantile(1.0 - 10_f64.powf(-nines)).max(1) as f64 / 1e3))
        .collect()
}

/// `90 %`, `99.9 %`.
fn quantile_name(nines: f64) -> String {
    let decimals = (nines.ceil() as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_case_has_its_curve_in_the_panel_of_its_load() {
        let mut delays = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        for ns in 1..2000 {
            delays.record(ns * 100).unwrap();
        }
        let file = std::env::temp_dir().join(format!("xlvs-bench-curves-{}.svg", std::process::id()));
        let curves: Vec<Curve<'_>> = [("10 %", "bare"), ("10 %", "director"), ("90 %", "bare")]
            .into_iter()
            .map(|(panel, name)| Curve { panel: panel.to_owned(), name, delays: &delays })
            .collect();
        draw(&file, &curves).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(svg.starts_with("<svg "));
        assert_eq!(svg.matches("\nbare\n").count(), 2);
        assert_eq!(svg.matches("\ndirector\n").count(), 1);
        assert!(svg.contains("99.9 %"), "{svg}");
    }

    #[test]
    fn quantiles_are_named_by_their_nines() {
        for (nines, name) in [(1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")] {
            assert_eq!(quantile_name(nines), name);
        }
    }
}
