//! HTTP and HTTPS: `GET` of a page, its status, its body and that one's digest.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use md5::{Digest, Md5};
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::Connectors;
use super::{Found, MOST_ANSWER, Matcher, Target, hex, quoted, stream};
use crate::health::spec::HttpProbe;
use crate::health::state::Outcome;

/// What a page must and must not have.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'m> {
    pub(super) has: Option<&'m Matcher>,
    pub(super) lacks: Option<&'m Matcher>,
}

/// Asks for a page.
pub(super) async fn get(
    probe: &HttpProbe,
    wanted: Wanted<'_>,
    target: Target,
    connectors: &Connectors,
) -> Outcome {
    let stream = stream::connect(target).await?;
    match &probe.tls {
        None => exchange(probe, wanted, target, stream).await,
        Some(tls) => exchange(probe, wanted, target, connectors.connect(tls, target, stream).await?).await,
    }
}

async fn exchange(
    probe: &HttpProbe,
    wanted: Wanted<'_>,
    target: Target,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Outcome {
    let host = probe.host.clone().unwrap_or_else(|| target.socket().to_string());
    let request = Request::get(&probe.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("xlvs/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the request can't be made: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| no_http(&error))?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(|error| no_http(&error))?;
        judge(probe, wanted, response).await
    };
    tokio::pin!(asked);
    // The connection moves the bytes of both; what it fails of shows in the answer.
    tokio::select! {
        outcome = &mut asked => outcome,
        _ = connection => asked.await,
    }
}

async fn judge(probe: &HttpProbe, wanted: Wanted<'_>, response: Response<hyper::body::Incoming>) -> Outcome {
    let status = response.status().as_u16();
    if !probe.status.iter().any(|(first, last)| (*first..=*last).contains(&status)) {
        return Err(format!("status {status}, expected {}", ranges(&probe.status)));
    }
    let Wanted { has, lacks } = wanted;
    if has.is_none() && lacks.is_none() && probe.md5.is_none() {
        return Ok(());
    }
    let body = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
    let body = body.map_err(|error| format!("the page can't be read: {error}"))?.to_bytes();
    if has.is_some_and(|has| has.look(&body) != Found::Yes) {
        return Err(format!("the page has not what it must: {}", quoted(&body)));
    }
    if lacks.is_some_and(|lacks| lacks.look(&body) == Found::Yes) {
        return Err(format!("the page has what it must not: {}", quoted(&body)));
    }
    let digest = Md5::digest(&body);
    match probe.md5 {
        Some(expected) if digest.as_slice() != expected => {
            Err(format!("the page's MD5 is {}, expected {}", hex(&digest), hex(&expected)))
        }
        _ => Ok(()),
    }
}

/// `200-299, 304`.
fn ranges(status: &[(u16, u16)]) -> String {
    let range = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    status.iter().map(range).collect::<Vec<_>>().join(", ")
}

fn no_http(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "closed without an answer".to_owned();
    }
    match std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(cause) => super::plain(cause),
        None if error.is_parse() => "the answer is no HTTP".to_owned(),
        None => error.to_string(),
    }
}
