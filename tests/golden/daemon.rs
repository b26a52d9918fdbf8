//! What ipvsadm printed on a real kernel it prints with a running daemon (`through.rs` draws the network): `xlvs adm`, and Debian's
//! ipvsadm under `xlvs wrap`. Needs root.

mod told;

use told::Told;

/// Cases through the daemon that are waived as a whole: the captured machine's kernel, its module, its log, the bounds of its settings.
const WAIVED: usize = 5;

fn replay(way: &str) {
    let told = Told::by(&["--through", way], &["formats.jsonl"]);
    told.is_right(way);
    assert_eq!(told.waived().count(), WAIVED, "{:?}", told.waived().collect::<Vec<_>>());
}

#[test]
fn xlvs_adm_prints_what_ipvsadm_printed() {
    replay("adm");
}

#[test]
fn ipvsadm_under_the_wrapper_prints_what_it_printed() {
    replay("ipvsadm");
}
