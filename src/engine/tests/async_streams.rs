//! The stream as a `futures` stream: the same tensors and errors, on any executor.

use super::limits::{equal, four};
use super::{Rig, capped, loader, without_hanging};
use crate::error::ErrorKind;
use crate::load::AsyncTensorStream;
use crate::options::Order;
use crate::source::memory::Fault;
use futures_util::StreamExt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread, with no runtime at all.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

async fn names_of(mut stream: AsyncTensorStream, rig: &Rig) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(tensor) = stream.next().await {
        let tensor = tensor.unwrap();
        assert!(rig.is_intact(&tensor));
        names.push(tensor.name().to_owned());
    }
    assert!(StreamExt::next(&mut stream).await.is_none());
    names
}

#[test]
fn the_async_stream_yields_the_same_without_any_runtime() {
    without_hanging(|| {
        let rig = equal();
        for loader in [loader(), four(), capped().engines(2)] {
            let expected: Vec<_> =
                rig.checkpoint.tensors().iter().map(|tensor| tensor.name().to_owned()).collect();
            let stream = rig.stream(&loader.clone().order(Order::File)).into_async();
            assert_eq!(block_on(names_of(stream, &rig)), expected);
            let mut names = block_on(names_of(rig.stream(&loader).into_async(), &rig));
            names.sort();
            assert_eq!(names, expected);
        }
    });
}

/// A stream may be polled by one task and then by another: the last one is woken.
#[test]
fn an_async_stream_that_changes_hands_wakes_who_polled_last() {
    without_hanging(|| {
        let rig = equal();
        rig.script(|_, _, _| {
            thread::sleep(Duration::from_millis(2));
            Fault::None
        });
        let mut stream = rig.stream(&four()).into_async();
        let polled = stream.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
        let first = usize::from(matches!(polled, Poll::Ready(Some(Ok(_)))));
        drop(polled);
        assert_eq!(first + block_on(names_of(stream, &rig)).len(), 24);
    });
}

#[test]
fn an_async_consumer_that_holds_everything_gets_the_error_too() {
    without_hanging(|| {
        let rig = equal();
        let stream = rig.stream(&four()).into_async();
        let held: Vec<_> = block_on(StreamExt::collect(stream));
        let (error, tensors) = held.split_last().unwrap();
        assert_eq!(error.as_ref().unwrap_err().kind(), ErrorKind::MemoryLimit);
        assert!(tensors.iter().all(|tensor| rig.is_intact(tensor.as_ref().unwrap())));
    });
}
