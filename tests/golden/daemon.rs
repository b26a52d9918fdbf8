//! What ipvsadm printed on a real kernel it prints with a running daemon (`through.rs` draws the network): `xlvs adm`, and Debian's
//! ipvsadm under `xlvs wrap`. Needs root.

mod told;

use told::Told;

/// Replays a way; so many cases are waived as a whole: the captured machine's kernel, its module, its log, the bounds of its
/// settings, and with `xlvs adm` the restoring of a mark that ipvsadm can't restore.
fn replay(way: &str, waived: usize) {
    let told = Told::by(&["--through", way], &["formats.jsonl"]);
    told.is_right(way);
    assert_eq!(told.waived().count(), waived, "{:?}", told.waived().collect::<Vec<_>>());
}

#[test]
fn xlvs_adm_prints_what_ipvsadm_printed() {
    replay("adm", 7);
}

#[test]
fn ipvsadm_under_the_wrapper_prints_what_it_printed() {
    replay("ipvsadm", 5);
}
