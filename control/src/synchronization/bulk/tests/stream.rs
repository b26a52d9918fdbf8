//! A stream that isn't what the server has sent, and a server that sends what it shouldn't.

use super::*;

/// What somebody between the two does to the server's frames (0: handshake, 1: welcome, then entries, at last the end), what the client
/// says of it, and how many entries it takes at most.
#[tokio::test(start_paused = true)]
async fn what_is_done_to_the_stream_on_its_way_is_found() {
    let mut kept = Vec::new();
    type Row<'r> = (&'r str, &'r mut dyn FnMut(usize, &mut Vec<u8>) -> bool, &'r str, usize);
    let rows: [Row<'_>; 10] = [
        ("the handshake changed", &mut |at, frame| alter(at == 0, frame), "it has another key", 0),
        ("the welcome changed", &mut |at, frame| alter(at == 1, frame), "changed on its way", 0),
        ("entries changed", &mut |at, frame| alter(at == 3, frame), "changed on its way", 255),
        (
            "an oversized frame",
            &mut |at, frame| relength(at == 2, frame, 0x8001),
            "32769 bytes; 16 to 32768",
            0,
        ),
        ("an undersized frame", &mut |at, frame| relength(at == 2, frame, 15), "15 bytes; 16 to 32768", 0),
        ("cut between frames", &mut |at, _| at < 3, "ended after 510 connections, of about 1000", 510),
        (
            "cut within a frame",
            &mut |at, frame| {
                if at == 3 {
                    frame.truncate(99)
                };
                at < 3
            },
            "in the middle of a frame",
            255,
        ),
        (
            "a frame left out",
            &mut |at, frame| {
                if at == 3 {
                    frame.clear()
                };
                true
            },
            "changed on its way",
            255,
        ),
        (
            "a frame twice",
            &mut |at, frame| {
                if at == 3 {
                    frame.extend(frame.clone())
                };
                true
            },
            "changed on its way",
            510,
        ),
        (
            "frames in another order",
            &mut |at, frame| {
                if at == 3 {
                    kept = std::mem::take(frame);
                } else if at == 4 {
                    frame.append(&mut kept);
                }
                true
            },
            "changed on its way",
            255,
        ),
    ];
    let table = entries(2, 1000);
    for (what, tamper, words, delivered) in rows {
        let server = server(table.clone());
        let (result, came) = exchange_over(&server, &client(), |_, _| true, tamper).await;
        let told = result.unwrap_err().to_string();
        assert!(told.contains(words), "{what}: {told}");
        assert!(came == table[..delivered], "{what}: {} came", came.len());
    }
}

fn alter(is_it: bool, frame: &mut [u8]) -> bool {
    if is_it {
        *frame.last_mut().unwrap() ^= 1;
    }
    true
}

fn relength(is_it: bool, frame: &mut [u8], length: u16) -> bool {
    if is_it {
        frame[..2].copy_from_slice(&length.to_be_bytes());
    }
    true
}

fn message(entries: &[Entry]) -> Vec<u8> {
    let mut packer = crate::synchronization::message::Packer::new(SYNC_ID, frame::MAX_MESSAGE);
    for entry in entries {
        assert_eq!(packer.push(entry), None);
    }
    packer.flush().unwrap().to_vec()
}

#[tokio::test(start_paused = true)]
async fn what_a_server_sends_that_it_should_not_is_refused() {
    let table = entries(4, 5);
    let whole = message(&table);
    let mut other_id = whole.clone();
    other_id[1] = 9;
    let rows: [(&str, &[Vec<u8>], &str, usize); 9] = [
        ("too few", &[entries_frame(&whole), end(6)], "sent 6 connections, but 5 came", 5),
        ("too many", &[entries_frame(&whole), end(4)], "sent 4 connections, but 5 came", 5),
        ("none at all", &[end(1)], "sent 1 connections, but 0 came", 0),
        ("no end", &[entries_frame(&whole)], "ended after 5 connections, of about 5", 5),
        ("a message cut off", &[entries_frame(&whole[..whole.len() - 4])], "header's length", 0),
        ("another sync id", &[entries_frame(&other_id)], "another sync id", 0),
        ("a frame of no kind", &[vec![77, 1, 2]], "the kind 77", 0),
        ("an empty frame", &[vec![]], "the kind 0", 0),
        ("an end with more in it", &[[end(0), vec![0]].concat()], "the kind 5", 0),
    ];
    for (what, frames, words, delivered) in rows {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let sends = async {
            let mut channel = welcoming(theirs, 5).await;
            for frame in frames {
                channel.push(frame).unwrap();
            }
            channel.close(IDLE_LIMIT).await.unwrap();
        };
        let client = client();
        let ((), (result, came)) = tokio::join!(sends, fetch(&client, ours));
        let told = result.unwrap_err().to_string();
        assert!(told.contains(words), "{what}: {told}");
        assert!(came == table[..delivered], "{what}: {} came", came.len());
    }
}

fn entries_frame(message: &[u8]) -> Vec<u8> {
    bytes(&Frame::Entries(message))
}

fn end(entries: u64) -> Vec<u8> {
    bytes(&Frame::End { entries })
}

/// As a later release may know more protocols: those before and after it are of use.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_understood_is_passed_over_and_counted() {
    let table: Vec<Entry> = (0..3).map(numbered).collect();
    let mut message = message(&table);
    // The second entry's protocol.
    message[8 + 36 + 1] = 200;
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let sends = async {
        let mut channel = welcoming(theirs, 3).await;
        channel.push(&entries_frame(&message)).unwrap();
        channel.push(&end(3)).unwrap();
        channel.close(IDLE_LIMIT).await.unwrap();
    };
    let client = client();
    let ((), (summary, came)) = tokio::join!(sends, fetch(&client, ours));
    let summary = summary.unwrap();
    assert_eq!((summary.entries, summary.skipped), (2, 1));
    assert_eq!(came, [table[0], table[2]]);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_tables_hold_are_not_taken() {
    let (result, came) = exchange(&server(entries(5, 1000)), &Client { most_entries: 600, ..client() }).await;
    let told = result.unwrap_err().to_string();
    assert!(told.contains("more than 600 connections"), "{told}");
    assert!(came.len() <= 600, "{}", came.len());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_too_long_is_not_sent() {
    let (ours, theirs) = tokio::io::duplex(ROOM);
    let key = key(1);
    let (ours, _theirs) = tokio::join!(Channel::connect(ours, &key), Channel::accept(theirs, &key));
    let mut ours = ours.unwrap();
    ours.push(&[0; channel::MAX_PLAIN]).unwrap();
    assert!(ours.push(&[0; channel::MAX_PLAIN + 1]).is_err());
}
