//! `scripts/soak.sh`: the soak of the kit for as long as is asked, from a seed that is given or drawn.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(minutes)), seed) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: soak MINUTES [SEED]");
        return ExitCode::from(2);
    };
    let seed = match seed {
        Some(Ok(seed)) => seed,
        None => rand::random(),
        Some(Err(error)) => {
            eprintln!("the seed is no number: {error}");
            return ExitCode::from(2);
        }
    };
    let summary = xlvs_tests::soak::run(Duration::from_secs(minutes * 60), seed);
    println!(
        "{} steps, {} downloads and requests answered, 0 failed; memory grew by {} KiB at most",
        summary.steps, summary.answered, summary.growth_kib
    );
    ExitCode::SUCCESS
}
