//! Idle connections. All threads of a client share them: a connection that received headers receives
//! tensors next. While a connection is idle it belongs to no runtime.

use super::ahead::Ahead;
use super::origin::ServerOrigin;
use super::stream::Stream;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Connections that were idle for longer are not reused, as servers close them (S3 after 20 s).
const IDLE_MAX: Duration = Duration::from_secs(15);
/// After this time without an answer, and then at this interval, a new connection makes way for
/// itself.
const UNANSWERED_MIN: Duration = Duration::from_secs(1);
const UNANSWERED_INTERVAL: Duration = Duration::from_millis(100);

/// The idle connections of a client.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<PoolState>,
    pub ahead: Ahead,
}

#[derive(Default)]
struct PoolState {
    idle: HashMap<ServerOrigin, Vec<(Stream, Instant)>>,
    /// Whether [`Pool::close_old`] runs.
    watched: bool,
}

impl Pool {
    /// Takes the connection to `origin` that was used last, unless it is too old or not quiet, for the
    /// runtime of the caller.
    pub fn take(&self, origin: &ServerOrigin) -> Option<Stream> {
        let mut state = self.state.lock();
        let of_origin = state.idle.get_mut(origin)?;
        while let Some((mut stream, since)) = of_origin.pop() {
            if since.elapsed() >= IDLE_MAX {
                of_origin.clear(); // all others are older
            } else if stream.is_quiet() && stream.enter_runtime().is_ok() {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection for the next request. Returns whether [`close_old`](Self::close_old) is to be
    /// started.
    pub fn keep(&self, origin: &ServerOrigin, mut stream: Stream) -> bool {
        if stream.leave_runtime().is_err() {
            return false;
        }
        let mut state = self.state.lock();
        state.idle.entry(origin.clone()).or_default().push((stream, Instant::now()));
        !std::mem::replace(&mut state.watched, true)
    }

    /// The number of idle connections to `origin`.
    pub fn idle(&self, origin: &ServerOrigin) -> usize {
        self.state.lock().idle.get(origin).map_or(0, Vec::len)
    }

    /// Closes the idle connections to `origin` but for `kept` of them, and those opened ahead.
    pub fn close_idle(&self, origin: &ServerOrigin, kept: usize) {
        self.ahead.close(origin);
        let mut state = self.state.lock();
        if let Some(of_origin) = state.idle.get_mut(origin) {
            let surplus = of_origin.len().saturating_sub(kept);
            of_origin.drain(..surplus);
        }
    }

    /// Awaits what a new connection to `origin` waits for. When that takes long, idle connections are
    /// closed: some servers serve one connection after the other, and begin with the next one when
    /// the client closes one.
    pub async fn unless_in_the_way<T>(
        &self,
        origin: &ServerOrigin,
        waiting: impl Future<Output = T>,
    ) -> T {
        let mut waiting = pin!(waiting);
        let mut patience = UNANSWERED_MIN;
        loop {
            tokio::select! {
                biased;
                done = waiting.as_mut() => return done,
                () = sleep(patience) => self.close_idle(origin, 0),
            }
            patience = UNANSWERED_INTERVAL;
        }
    }

    /// Closes connections that are too old, until there are none left.
    pub async fn close_old(pool: Weak<Self>) {
        loop {
            sleep(IDLE_MAX).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut state = pool.state.lock();
            state.idle.retain(|_, of_origin| {
                of_origin.retain(|(_, since)| since.elapsed() < IDLE_MAX);
                !of_origin.is_empty()
            });
            if state.idle.is_empty() {
                state.watched = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http::socket::Socket;
    use http::Uri;
    use std::io::Read;
    use std::sync::Arc;
    use tokio::net::TcpStream;

    fn connection() -> (Stream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = Stream::Http(Socket::plain(TcpStream::from_std(stream).unwrap()));
        (stream, listener.accept().unwrap().0)
    }

    /// The connections of a load stayed open, on the side of the client, until another load to the same
    /// server found them closed.
    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_also_if_nobody_asks_for_them() {
        let origin = ServerOrigin::of(&Uri::from_static("http://h/"));
        let pool = Arc::<Pool>::default();
        let (first, mut first_peer) = connection();
        let (second, mut second_peer) = connection();
        assert!(pool.keep(&origin, first));
        let closing = tokio::spawn(Pool::close_old(Arc::downgrade(&pool)));
        sleep(IDLE_MAX / 2).await;
        assert!(!pool.keep(&origin, second));
        sleep(IDLE_MAX * 2 / 3).await;
        assert_eq!(first_peer.read(&mut [0]).unwrap(), 0);
        second_peer.set_nonblocking(true).unwrap();
        assert!(second_peer.read(&mut [0]).is_err(), "it is not old yet");
        closing.await.unwrap();
        assert_eq!(second_peer.read(&mut [0]).unwrap(), 0);
        assert!(pool.keep(&origin, connection().0), "the next one is watched again");
    }

    /// A runtime that ended took its connections with it.
    #[test]
    fn a_connection_is_used_by_one_runtime_after_the_other() {
        let origin = ServerOrigin::of(&Uri::from_static("http://h/"));
        let (pool, mut peer) = (Pool::default(), None);
        for turn in 0..3_u8 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let stream = pool.take(&origin).unwrap_or_else(|| {
                    let (stream, other) = connection();
                    peer = Some(other);
                    stream
                });
                let mut sent = Box::pin(stream);
                let bytes = [turn];
                std::future::poll_fn(|cx| hyper::rt::Write::poll_write(sent.as_mut(), cx, &bytes))
                    .await
                    .unwrap();
                pool.keep(&origin, *std::pin::Pin::into_inner(sent));
            });
        }
        let mut received = [0; 3];
        peer.unwrap().read_exact(&mut received).unwrap();
        assert_eq!(received, [0, 1, 2]);
    }
}
