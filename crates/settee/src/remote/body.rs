//! A reply's body: bytes as they come, decoded, with an eye on the clock.

use super::runtime;
use crate::adapter::ByteStream;
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::body::{Body as _, Incoming};
use settee_core::{Error, ErrorKind, Result};
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// So many bytes are decoded at a time, which bounds what they can become.
const GZIP_STEP: usize = 4096;

pub(crate) struct Body {
    incoming: Incoming,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs since the last bytes.
    waiting: bool,
    gzip: Option<Gunzip>,
    ended: bool,
}

struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    input: Bytes,
}

impl Gunzip {
    fn new() -> Gunzip {
        Gunzip { decoder: MultiGzDecoder::new(Vec::new()), input: Bytes::new() }
    }

    /// What some of the input becomes; `None` if it has been used up.
    fn step(&mut self) -> Option<Result<Bytes>> {
        while !self.input.is_empty() {
            let step = self.input.len().min(GZIP_STEP);
            let written = self.decoder.write_all(&self.input[..step]);
            self.input.advance(step);
            let decoded = std::mem::take(self.decoder.get_mut());
            match written {
                Err(error) => return Some(Err(not_gzip(error))),
                Ok(()) if decoded.is_empty() => {}
                Ok(()) => return Some(Ok(decoded.into())),
            }
        }
        None
    }

    /// What is left at the end.
    fn finish(mut self) -> Option<Result<Bytes>> {
        let finished = self.decoder.try_finish();
        let rest = std::mem::take(self.decoder.get_mut());
        match finished {
            Err(error) => Some(Err(not_gzip(error))),
            Ok(()) if rest.is_empty() => None,
            Ok(()) => Some(Ok(rest.into())),
        }
    }
}

/// Bytes, decoded as they come.
pub(crate) fn gunzip(body: ByteStream) -> ByteStream {
    let decoded =
        stream::try_unfold((body, Some(Gunzip::new())), |(mut body, gunzip)| async move {
            let Some(mut gunzip) = gunzip else { return Ok(None) };
            loop {
                if let Some(bytes) = gunzip.step() {
                    return Ok(Some((bytes?, (body, Some(gunzip)))));
                }
                match body.try_next().await? {
                    Some(bytes) => gunzip.input = bytes,
                    None => {
                        let rest = gunzip.finish().transpose()?;
                        return Ok(rest.map(|rest| (rest, (body, None))));
                    }
                }
            }
        });
    decoded.boxed()
}

impl Body {
    pub(crate) fn new(incoming: Incoming, idle: Duration, gzip: bool) -> Body {
        Body {
            incoming,
            idle,
            timer: None,
            waiting: false,
            gzip: gzip.then(Gunzip::new),
            ended: false,
        }
    }

    /// The same, decoded.
    pub(crate) fn gunzip(mut self) -> Body {
        self.gzip = Some(Gunzip::new());
        self
    }

    /// The next bytes as they come.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    let reason = format!("The connection was lost: {error}");
                    let error = Error::new(ErrorKind::Unreachable, reason).with_source(error);
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = false;
                    match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                        _ => {}
                    }
                }
                Poll::Pending => {
                    ready!(self.poll_timer(cx));
                    let reason = "The server fell silent.";
                    let error = Error::new(ErrorKind::Unreachable, reason).with_name("timeout");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.idle;
        let timer = self.timer.get_or_insert_with(|| {
            let _guard = runtime::enter();
            Box::pin(tokio::time::sleep_until(deadline))
        });
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if let Some(bytes) = self.gzip.as_mut().and_then(Gunzip::step) {
                return Poll::Ready(Some(bytes));
            }
            let next = ready!(self.poll_raw(cx));
            let Some(gunzip) = &mut self.gzip else { return Poll::Ready(next) };
            match next {
                Some(Ok(bytes)) => gunzip.input = bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.gzip.take().and_then(Gunzip::finish)),
            }
        }
    }
}

fn not_gzip(error: std::io::Error) -> Error {
    super::http::bad_reply("The reply is not the gzip it claims to be.").with_source(error)
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_decoded(cx));
        // Nothing comes after the end or a failure.
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}
