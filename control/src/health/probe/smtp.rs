//! SMTP as far as no mail is sent: the greeting, HELO and QUIT, each answered with its code.

use rustix::system::uname;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{Target, plain, quoted, stream};
use crate::health::spec::SmtpProbe;
use crate::health::state::Outcome;

/// The most bytes of all replies.
const MOST: u64 = 65_536;

/// Greets a server, and leaves.
pub(super) async fn greet(probe: &SmtpProbe, target: Target) -> Outcome {
    let mut stream = stream::connect(target).await?;
    let (replies, mut commands) = stream.split();
    let mut replies = BufReader::new(replies.take(MOST));
    expect(&mut replies, "220", "greeted with").await?;
    let helo = probe.helo.clone().unwrap_or_else(host_name);
    for (command, code, said) in [
        (format!("HELO {helo}\r\n"), "250", "answered HELO with"),
        ("QUIT\r\n".to_owned(), "221", "answered QUIT with"),
    ] {
        commands.write_all(command.as_bytes()).await.map_err(|error| plain(&error))?;
        expect(&mut replies, code, said).await?;
    }
    Ok(())
}

/// Reads a reply to its last line: in others a `-` follows the code.
async fn expect(replies: &mut (impl AsyncBufRead + Unpin), code: &str, said: &str) -> Outcome {
    loop {
        let mut line = Vec::new();
        replies.read_until(b'\n', &mut line).await.map_err(|error| plain(&error))?;
        match line.strip_prefix(code.as_bytes()) {
            Some([b'-', ..]) if line.ends_with(b"\n") => {}
            Some([] | [b' ' | b'\r' | b'\n', ..]) => return Ok(()),
            _ if line.is_empty() => return Err(format!("closed where it should have {said} {code}")),
            _ => return Err(format!("{said} {}, expected {code}", quoted(&line))),
        }
    }
}

/// The director's own name.
fn host_name() -> String {
    let name = uname();
    let name = name.nodename().to_string_lossy();
    let is_word = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_word { name.into_owned() } else { "localhost".to_owned() }
}
