//! TCP: a connection, and what is said on it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Found, MOST_ANSWER, Matcher, Target, plain, quoted};
use crate::health::state::Outcome;

/// Opens a connection.
pub(super) async fn connect(target: Target) -> Result<TcpStream, String> {
    TcpStream::connect(target.socket()).await.map_err(|error| plain(&error))
}

/// Sends, then reads until the answer is the expected one, or can't become it any more.
pub(super) async fn send_expect(send: &str, expected: Option<&Matcher>, target: Target) -> Outcome {
    let mut stream = connect(target).await?;
    stream.write_all(send.as_bytes()).await.map_err(|error| plain(&error))?;
    let Some(expected) = expected else { return Ok(()) };
    let mut answer = Vec::new();
    loop {
        let room = MOST_ANSWER.saturating_sub(answer.len()) as u64;
        let read = (&mut stream).take(room).read_buf(&mut answer).await.map_err(|error| plain(&error))?;
        match expected.look(&answer) {
            Found::Yes => return Ok(()),
            Found::NotYet if read > 0 => {}
            Found::NotYet if answer.is_empty() => return Err("closed without an answer".to_owned()),
            Found::NotYet | Found::No => return Err(format!("answered {}", quoted(&answer))),
        }
    }
}
