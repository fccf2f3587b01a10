//! Bounds on what is asked of an API server and on what is taken from it, for whoever asks: kube-rs waits for the end
//! of an answer however long it is and however long that takes, and begins a watch that has ended again at once.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Uri,
    body::{Body, Bytes, Frame, SizeHint},
};
use tokio::time::{Instant, Sleep, sleep};
use tower::BoxError;

/// Bytes of an answer: a page of a list has a few megabytes.
const MAX_ANSWER: usize = 64 << 20;
/// Bytes of a line of a watch, which is one object.
const MAX_LINE: usize = 16 << 20;
/// Between two parts of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two beginnings of the same watch: a server that ends each at once, or what stands before it, is not to be
/// asked as often as it can answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a request is a watch.
pub(super) fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"))
}

/// When watches were begun last.
#[derive(Debug, Default)]
pub(super) struct WatchPace(Mutex<HashMap<String, Instant>>);

impl WatchPace {
    /// How long to wait before this request, which is then taken to be made.
    pub(super) fn take(&self, uri: &Uri, now: Instant) -> Duration {
        if !is_watch(uri) {
            return Duration::ZERO;
        }
        // The same whatever version it goes on from.
        let what = uri.query().unwrap_or_default().split('&').find(|part| part.starts_with("fieldSelector="));
        let watch = format!("{}?{}", uri.path(), what.unwrap_or_default());
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, at| *at + PAUSE > now);
        let at = begun.get(&watch).map_or(now, |last| *last + PAUSE);
        begun.insert(watch, at);
        at.saturating_duration_since(now)
    }
}

/// The body of an answer. Of a watch each line is bounded; it is silent for as long as nothing happens, and who reads
/// it ends it.
pub(super) struct Bounded<B> {
    body: B,
    left: usize,
    /// `None` of a watch.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<B> Bounded<B> {
    pub(super) fn new(body: B, is_watch: bool) -> Self {
        let left = if is_watch { MAX_LINE } else { MAX_ANSWER };
        Self { body, left, silence: (!is_watch).then(|| Box::pin(sleep(SILENCE))) }
    }

    /// # Errors
    /// When it is too much.
    fn count(&mut self, data: &[u8]) -> Result<(), String> {
        let what = if self.silence.is_some() {
            ("the answer", MAX_ANSWER)
        } else {
            ("a line of the watch", MAX_LINE)
        };
        let line = data.iter().rposition(|byte| *byte == b'\n').filter(|_| self.silence.is_none());
        let (left, more) = line.map_or((self.left, data), |end| (MAX_LINE, &data[end..]));
        self.left = left
            .checked_sub(more.len())
            .ok_or_else(|| format!("{} is larger than {} MiB", what.0, what.1 >> 20))?;
        Ok(())
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let silent = self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(cx).is_ready());
            let why = || format!("the answer stopped half way for {} s", SILENCE.as_secs());
            return if silent { Poll::Ready(Some(Err(why().into()))) } else { Poll::Pending };
        };
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref())
            && let Err(why) = self.count(data)
        {
            return Poll::Ready(Some(Err(why.into())));
        }
        if let Some(silence) = &mut self.silence {
            silence.as_mut().reset(Instant::now() + SILENCE);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{Stream, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_watch_is_begun_once_a_second_and_others_are_not_held_back() {
        let pace = WatchPace::default();
        let take = |uri: &str, now| pace.take(&uri.parse().unwrap(), now).as_millis();
        let start = Instant::now();
        let pods = "/api/v1/pods?&watch=true&fieldSelector=spec.nodeName%3Da&resourceVersion=";
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(take(&format!("{pods}1"), start), 0);
        assert_eq!(take(&format!("{pods}2"), at(300)), 700);
        assert_eq!(take(&format!("{pods}2"), at(400)), 1600);
        for other in
            ["/api/v1/pods?&watch=true&fieldSelector=spec.nodeName%3Db", "/api/v1/services?watch=true"]
        {
            assert_eq!(take(other, start), 0, "{other}");
        }
        for _ in 0..2 {
            assert_eq!(take("/api/v1/pods?fieldSelector=spec.nodeName%3Da", at(400)), 0);
        }
        assert_eq!(take(&format!("{pods}3"), at(4000)), 0);
        // What is long ago is not kept.
        assert_eq!(pace.0.lock().unwrap().len(), 1);
    }

    async fn taken(parts: impl Stream<Item = Bytes> + Send + Unpin, is_watch: bool) -> Result<usize, String> {
        let parts = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
        let body = Bounded::new(StreamBody::new(parts), is_watch);
        let whole = body.collect().await.map_err(|error| error.to_string())?;
        Ok(whole.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_end_is_given_up() {
        let part = || Bytes::from_static(&[b'a'; 1 << 20]);
        let many = |count| stream::repeat_with(part).take(count);
        assert_eq!(taken(many(64), false).await, Ok(64 << 20));
        assert_eq!(taken(many(65), false).await, Err("the answer is larger than 64 MiB".to_owned()));
        assert_eq!(taken(many(17), true).await, Err("a line of the watch is larger than 16 MiB".to_owned()));
        let lines = many(8).chain(stream::iter([Bytes::from_static(b"a\nb")])).collect::<Vec<_>>().await;
        let many_lines = lines.iter().cycle().take(9 * 9).cloned();
        assert_eq!(taken(stream::iter(many_lines), true).await, Ok((72 << 20) + 27));
        let slow = |count| {
            stream::repeat_with(part).take(count).then(|part| async {
                sleep(SILENCE - Duration::from_secs(1)).await;
                part
            })
        };
        assert_eq!(taken(slow(3).boxed(), false).await, Ok(3 << 20));
        let stuck = || many(1).chain(stream::pending());
        let told = Err("the answer stopped half way for 30 s".to_owned());
        assert_eq!(taken(stuck(), false).await, told);
        assert!(tokio::time::timeout(SILENCE * 10, taken(stuck(), true)).await.is_err());
    }
}
