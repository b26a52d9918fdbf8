//! Each kind of answer, by servers of the test's own on the loopback address.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::super::programs::ProgramRunner;
use super::*;
use crate::health::spec::{
    HttpProbe, MaskedByte, ProgramProbe, ProgramSuccess, ReplyRule, SmtpProbe, UdpProbe,
};

/// What comes of asking a port of this host once.
async fn asked(probe: Probe, port: u16) -> Answer {
    let time = Duration::from_secs(10);
    let spec = CheckSpec {
        probe,
        interval: time,
        timeout: time,
        retry: time,
        rise: 1,
        reentry: Duration::ZERO,
        fall: 1,
        jitter: 0,
        address: None,
        port,
    };
    let host = Ipv4Addr::LOCALHOST.into();
    let target = Target { server: host, address: host, port };
    Check::new(spec)
        .run(&Arc::new(Prober::new(ProgramRunner::of_this_thread(), None)), target, Ways::default())
        .await
}

/// A server of one connection: it says each of these texts, and reads a line after each; with an empty one it closes. What it heard.
async fn scripted(says: &'static [&'static str]) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let mut heard = String::new();
        for text in says.iter().take_while(|text| !text.is_empty()) {
            stream.write_all(text.as_bytes()).await.unwrap();
            // A client that goes is as good as one that says nothing.
            let _ = stream.read_line(&mut heard).await;
        }
        heard
    });
    (port, server)
}

/// A web server of one page, asked once.
async fn page(body: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let mut line = String::new();
        while stream.read_line(&mut line).await.unwrap() > 2 {
            line.clear();
        }
        let page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(page.as_bytes()).await.unwrap();
        // Until the client has closed.
        let _ = stream.read_to_string(&mut line).await;
    });
    port
}

/// The reason of a failure, or the weight that is told.
fn said(answer: &Answer) -> Result<Option<u32>, &str> {
    answer.as_ref().copied().map_err(String::as_str)
}

/// What the server says first, to HELO and to QUIT; what it hears, and what comes of it.
#[tokio::test]
async fn each_step_of_smtp_has_its_code() {
    let whole = "HELO lb.example\r\nQUIT\r\n";
    let rows: [(&[&str], &str, Answer); 8] = [
        (&["220 ready\r\n", "250 hello\r\n", "221 bye\r\n"], whole, Ok(None)),
        (&["220-one\r\n220-two\r\n220 three\r\n", "250-a\r\n250\r\n", "221\n"], whole, Ok(None)),
        (&["554 no\r\n"], "", Err("greeted with \"554 no\", expected 220".to_owned())),
        (&["220x\r\n"], "", Err("greeted with \"220x\", expected 220".to_owned())),
        (&[""], "", Err("closed where it should have greeted with 220".to_owned())),
        (
            &["220 a\r\n", "501 who?\r\n"],
            "HELO lb.example\r\n",
            Err("answered HELO with \"501 who?\", expected 250".to_owned()),
        ),
        (
            &["220 a\r\n", "250 b\r\n", "500 what?\r\n"],
            whole,
            Err("answered QUIT with \"500 what?\", expected 221".to_owned()),
        ),
        (
            &["220 a\r\n", "250 b\r\n", ""],
            whole,
            Err("closed where it should have answered QUIT with 221".to_owned()),
        ),
    ];
    for (says, heard, expected) in rows {
        let (port, server) = scripted(says).await;
        let probe = Probe::Smtp(SmtpProbe { helo: Some("lb.example".to_owned()) });
        assert_eq!(asked(probe, port).await, expected, "{says:?}");
        assert_eq!(server.await.unwrap(), heard, "{says:?}");
    }
    let (port, server) = scripted(&["220\r\n", "250\r\n", "221\r\n"]).await;
    assert_eq!(asked(Probe::Smtp(SmtpProbe { helo: None }), port).await, Ok(None));
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().unwrap();
    assert_eq!(server.await.unwrap(), format!("HELO {name}\r\nQUIT\r\n"));
}

#[tokio::test]
async fn a_page_has_its_digest_and_not_what_it_must_not() {
    let hello =
        [0x5d, 0x41, 0x40, 0x2a, 0xbc, 0x4b, 0x2a, 0x76, 0xb9, 0x71, 0x9d, 0x91, 0x10, 0x17, 0xc5, 0x92];
    let rows = [
        (Some("h.l"), None, Some(hello), Ok(None)),
        (None, Some("H"), None, Ok(None)),
        (None, None, Some(hello), Ok(None)),
        (Some("x"), None, Some(hello), Err("the page has not what it must: \"hello\"")),
        (Some("h"), Some("l+o$"), None, Err("the page has what it must not: \"hello\"")),
        (
            None,
            None,
            Some([0xab; 16]),
            Err(
                "the page's MD5 is 5d41402abc4b2a76b9719d911017c592, expected abababababababababababababababab",
            ),
        ),
    ];
    for (has, lacks, md5, expected) in rows {
        let probe = HttpProbe {
            path: "/".to_owned(),
            host: None,
            status: vec![(200, 299)],
            body: has.map(|regex| Pattern::Regex(regex.to_owned())),
            unwanted: lacks.map(str::to_owned),
            md5,
            tls: None,
        };
        let answer = asked(Probe::Http(probe), page("hello").await).await;
        assert_eq!(said(&answer), expected, "{has:?} {lacks:?} {md5:?}");
    }
}

#[tokio::test]
async fn a_datagrams_reply_is_compared_as_far_as_both_reach() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let byte = |value, mask| MaskedByte { value, mask };
    type Row<'r> = (&'r [MaskedByte], (u16, u16), Result<Option<u32>, &'r str>);
    let rows: [Row<'_>; 7] = [
        (&[], (0, u16::MAX), Ok(None)),
        (&[byte(0x41, 0xff), byte(0x02, 0x0f)], (3, 3), Ok(None)),
        (&[byte(0x41, 0xff); 1], (0, 3), Ok(None)),
        (&[byte(0x41, 0xff), byte(0, 0), byte(0x43, 0xff), byte(0x44, 0xff)], (0, 3), Ok(None)),
        (&[byte(0x42, 0xff)], (0, 3), Err("answered other bytes than expected: 414243")),
        (&[], (4, 9), Err("answered 3 bytes, expected 4 to 9")),
        (&[], (0, 2), Err("answered 3 bytes, expected 0 to 2")),
    ];
    for (begins, length, expected) in rows {
        let rule = ReplyRule { begins: begins.to_vec(), length };
        let probe = Probe::Udp(UdpProbe { send: vec![0, 0xff], reply: Some(rule) });
        let reply = async {
            let mut heard = [0; 9];
            let (length, client) = server.recv_from(&mut heard).await.unwrap();
            server.send_to(b"ABC", client).await.unwrap();
            heard[..length].to_vec()
        };
        let (answer, heard) = tokio::join!(asked(probe, port), reply);
        assert_eq!((said(&answer), heard), (expected, vec![0, 0xff]), "{begins:?} {length:?}");
    }
}

#[tokio::test]
async fn a_programs_exit_code_may_be_a_weight() {
    let rows = [
        ("exit 0", ProgramSuccess::ExitCode, Ok(None)),
        ("exit 2", ProgramSuccess::ExitCode, Err("exit code 2")),
        ("exit 0", ProgramSuccess::ExitCodeAsWeight, Ok(None)),
        ("exit 1", ProgramSuccess::ExitCodeAsWeight, Err("exit code 1")),
        ("exit 2", ProgramSuccess::ExitCodeAsWeight, Ok(Some(0))),
        ("exit 255", ProgramSuccess::ExitCodeAsWeight, Ok(Some(253))),
        ("kill -9 $$", ProgramSuccess::ExitCodeAsWeight, Err("ended by a signal (signal: 9 (SIGKILL))")),
        ("echo OK; exit 3", ProgramSuccess::Output("OK".to_owned()), Ok(None)),
    ];
    for (script, success, expected) in rows {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let answer = asked(Probe::Program(ProgramProbe { command, success: success.clone() }), 0).await;
        assert_eq!(said(&answer), expected, "{script} {success:?}");
    }
}

#[test]
fn an_answer_begins_with_a_text_or_has_a_match() {
    let plain = |text: &str| Pattern::Plain(text.to_owned());
    let regex = |text: &str| Pattern::Regex(text.to_owned());
    let rows: [(Matcher, &[u8], Found); 12] = [
        (Matcher::begins(&plain("220")), b"", Found::NotYet),
        (Matcher::begins(&plain("220")), b"22", Found::NotYet),
        (Matcher::begins(&plain("220")), b"220 ready", Found::Yes),
        (Matcher::begins(&plain("220")), b"20", Found::No),
        (Matcher::begins(&plain("220")), b" 220", Found::No),
        (Matcher::begins(&Pattern::Any), b"", Found::NotYet),
        (Matcher::begins(&Pattern::Any), b"\xff", Found::Yes),
        (Matcher::begins(&regex("^2[23]0 ")), b"230 in", Found::Yes),
        (Matcher::begins(&regex("^2[23]0 ")), b"530 no", Found::NotYet),
        (Matcher::contains(&plain("a.b")), b"x a.b y", Found::Yes),
        (Matcher::contains(&plain("a.b")), b"x a-b y", Found::NotYet),
        (Matcher::contains(&regex("re+dy$")), b"\xffreeedy", Found::Yes),
    ];
    for (matcher, answer, found) in rows {
        assert_eq!(matcher.look(answer), found, "{matcher:?} {answer:?}");
    }
}

#[test]
fn what_a_server_said_is_short_and_harmless() {
    assert_eq!(quoted(b"530 no\r\nmore"), "\"530 no\"");
    assert_eq!(quoted(b"\x1b[2J\xff\""), "\"\\u{1b}[2J\u{fffd}\\\"\"");
    assert_eq!(quoted(&[b'a'; 61]), format!("\"{}…\"", "a".repeat(60)));
}
