//! Calls end soon when they are cancelled, whatever they wait for: by a token for the blocking forms, by
//! dropping the future of the async ones.
//!
//! Past hang: a server that accepted connections and never answered delayed the end of a process that
//! loaded from it by 122 seconds, as nothing could end the retries of `Loader::open`.

use crate::common::fault_server::{End, FaultServer, Reply};
use crate::common::model::Model;
use crate::common::{in_time, until};
use futures_util::FutureExt;
use ringload::{
    Cancellation, ErrorKind, Loader, Location, MemoryLimit, OwnedReadRequest, ReadRequest, Result,
};
use std::future::Future;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a call may go on after it was cancelled.
const DELAY_MAX: Duration = Duration::from_millis(100);
/// Other tests run beside this one: one of so many attempts has to keep the time.
const ATTEMPTS: usize = 5;
/// How long a call runs before it is cancelled, so that it waits for what it waits longest for.
const HEAD_START: Duration = Duration::from_millis(60);

type Blocking = fn(&Loader, &str) -> Result<()>;
type Async = fn(&Loader, &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

fn open(loader: &Loader, url: &str) -> Result<()> {
    loader.open(url).map(drop)
}

fn load(loader: &Loader, url: &str) -> Result<()> {
    loader.load(url).map(drop)
}

fn stream(loader: &Loader, url: &str) -> Result<()> {
    loader.stream(url)?.try_for_each(|tensor| tensor.map(drop))
}

fn read_into(loader: &Loader, url: &str) -> Result<()> {
    let mut memory = vec![0; 60_000];
    let mut requests = [ReadRequest::new(Location::parse(url)?, 1000, &mut memory)];
    loader.read_into(&mut requests, |_| ControlFlow::Continue(())).map(drop)
}

fn download(loader: &Loader, url: &str) -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    loader.download_checkpoint(url, directory.path())?.finish().map(drop)
}

fn list(loader: &Loader, url: &str) -> Result<()> {
    loader.list(&Location::parse(url)?, true).map(drop)
}

fn open_async(loader: &Loader, url: &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    loader.open_async(url).map(|done| done.map(drop)).boxed()
}

fn load_async(loader: &Loader, url: &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    loader.load_async(url).map(|done| done.map(drop)).boxed()
}

fn stream_async(loader: &Loader, url: &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    let starting = loader.stream_async(url);
    Box::pin(async {
        let mut stream = starting.await?;
        while let Some(tensor) = stream.next().await {
            drop(tensor?);
        }
        Ok(())
    })
}

fn read_into_async(loader: &Loader, url: &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    let location = Location::parse(url).unwrap();
    let request = OwnedReadRequest::new(location, 1000, vec![0_u8; 60_000]);
    loader.read_into_async(vec![request]).map(|done| done?.1.map(drop)).boxed()
}

fn download_async(loader: &Loader, url: &str) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
    let directory = tempfile::tempdir().unwrap();
    let downloading = loader.download_checkpoint_async(url, directory.path());
    downloading.map(move |done| (done.map(drop), directory).0).boxed()
}

const BLOCKING: [(&str, Blocking); 5] = [
    ("open", open),
    ("load", load),
    ("stream", stream),
    ("read_into", read_into),
    ("download", download),
];
const ASYNC: [(&str, Async); 5] = [
    ("open_async", open_async),
    ("load_async", load_async),
    ("stream_async", stream_async),
    ("read_into_async", read_into_async),
    ("download_async", download_async),
];

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` on this thread, without a runtime, until `until`.
fn poll_until<T>(mut future: Pin<&mut (dyn Future<Output = T> + Send)>, until: Instant) -> bool {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return true;
        }
        match until.checked_duration_since(Instant::now()) {
            None => return false,
            Some(left) => thread::park_timeout(left),
        }
    }
}

fn block_on<T>(mut future: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => thread::park(),
        }
    }
}

/// How long `call` goes on after it was cancelled by its token.
fn delay_by_token(call: Blocking, loader: &Loader, url: &str) -> Duration {
    let cancellation = Cancellation::new();
    let (loader, url) = (loader.clone().cancellation(&cancellation), url.to_owned());
    let calling = thread::spawn(move || call(&loader, &url));
    thread::sleep(HEAD_START);
    assert!(!calling.is_finished(), "it did not wait: {:?}", calling.join());
    let began = Instant::now();
    cancellation.cancel();
    let outcome = in_time("a cancelled call", move || calling.join().unwrap());
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    began.elapsed()
}

/// How long dropping the future of `call` takes.
fn delay_by_drop(call: Async, loader: &Loader, url: &str) -> Duration {
    let mut calling = call(loader, url);
    assert!(!poll_until(calling.as_mut(), Instant::now() + HEAD_START), "it did not wait");
    let began = Instant::now();
    drop(calling);
    began.elapsed()
}

/// Checks that the calls of `blocking` and `asynchronous` end soon at this location.
fn all_end_soon(what: &str, loader: &Loader, url: &str, blocking: &[(&str, Blocking)]) {
    let check = |name: &str, delay: &dyn Fn() -> Duration| {
        let keeps_time = (0..ATTEMPTS).any(|_| delay() <= DELAY_MAX);
        assert!(keeps_time, "{name} goes on, {what}");
    };
    for (name, call) in blocking {
        check(name, &|| delay_by_token(*call, loader, url));
        if let Some((name, call)) = ASYNC.iter().find(|it| it.0 == format!("{name}_async")) {
            check(name, &|| delay_by_drop(*call, loader, url));
        }
    }
}

/// A server that accepts connections and never answers.
struct SilentServer(TcpListener);

impl SilentServer {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/model.safetensors", self.0.local_addr().unwrap())
    }
}

#[test]
fn a_server_that_never_answers_delays_no_shutdown() {
    let server = SilentServer::start();
    all_end_soon("its server is silent", &Loader::new(), &server.url("http"), &BLOCKING);
}

#[test]
fn a_handshake_of_tls_delays_no_shutdown() {
    let server = SilentServer::start();
    all_end_soon("in a handshake", &Loader::new(), &server.url("https"), &BLOCKING[..2]);
}

#[test]
fn a_listing_delays_no_shutdown() {
    let server = SilentServer::start();
    let loader = Loader::new().endpoint(server.url("http").replace("/model.safetensors", ""));
    let loader = loader.set("s3_access_key_id", "id").unwrap();
    let loader = loader.set("s3_secret_access_key", "secret").unwrap();
    let loader = loader.region("us-east-1");
    all_end_soon("while it lists", &loader, "s3://bucket/model/", &[("list", list), BLOCKING[0]]);
}

/// The server asks to wait for a minute.
#[test]
fn a_wait_before_a_retry_delays_no_shutdown() {
    let busy = |_, _: &_| Reply::new(503).with("Retry-After", "60");
    let server = FaultServer::start(vec![0; 100], busy);
    all_end_soon("before a retry", &Loader::new(), &server.url(), &BLOCKING[..2]);
}

/// Headers are read, and the bytes of the tensors never come: neither their answers, nor their bodies.
#[test]
fn a_server_that_stops_in_mid_load_delays_no_shutdown() {
    let model = Model::small();
    let gate = Arc::new(AtomicBool::new(false));
    let never = Arc::clone(&gate);
    let silent = model.serve(move |_, request| request.right().once_open(&never));
    let calls = &BLOCKING[1..];
    all_end_soon("awaiting an answer", &Loader::new(), &silent.url(), calls);
    gate.store(true, Ordering::Release);
    let stops = model.serve(|_, request| request.right().cut(10_000, End::Hang));
    all_end_soon("in a body", &Loader::new(), &stops.url(), calls);
}

/// A download whose future is polled to its end has its files in their places.
#[test]
fn a_download_without_blocking_writes_its_files() {
    let model = Model::small();
    let server = model.serve(|_, request| request.right());
    let directory = tempfile::tempdir().unwrap();
    let files = [(Location::parse(&server.url()).unwrap(), "model.safetensors".into())];
    let download = Loader::new().download_async(&files, directory.path());
    let done = in_time("a download", move || block_on(download.boxed())).unwrap();
    assert_eq!(done.bytes, model.file.len() as u64);
    assert_eq!(std::fs::read(&done.files[0]).unwrap(), model.file);
}

/// The caller holds all memory, and its load waits for the next tensor to be dropped.
#[test]
fn a_wait_for_memory_delays_no_shutdown() {
    let model = Model::new(&[300_000; 8]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.safetensors");
    std::fs::write(&file, &model.file).unwrap();
    let limited = Loader::new().memory_limit(MemoryLimit::Bytes(700_000));
    let cancellation = Cancellation::new();
    let loader = limited.cancellation(&cancellation).hold_timeout(Duration::from_secs(600));
    let mut stream = loader.stream(&file).unwrap();
    let held: Vec<_> = stream.by_ref().take(2).map(Result::unwrap).collect();
    let waiting = thread::spawn(move || stream.next());
    thread::sleep(HEAD_START);
    cancellation.cancel();
    let next = in_time("a cancelled wait", move || waiting.join().unwrap()).unwrap();
    assert_eq!(next.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(held.iter().all(|it| it.bytes() == model.tensors[it.name()].bytes));
}

fn local_model(directory: &Path) -> (Model, String) {
    let model = Model::new(&[3_000_000; 8]);
    let file = directory.join("model.safetensors");
    std::fs::write(&file, &model.file).unwrap();
    (model, file.to_str().unwrap().to_owned())
}

/// A load of a file is cancelled at any moment: it ends, and what was yielded stays right.
#[test]
fn reads_of_files_end_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let (model, file) = local_model(directory.path());
    for after in 0..40 {
        let cancellation = Cancellation::new();
        let loader = Loader::new().cancellation(&cancellation);
        let path = file.clone();
        let loading = thread::spawn(move || {
            let mut yielded = Vec::new();
            for tensor in loader.stream(path.as_str())? {
                yielded.push(tensor?);
            }
            Ok::<_, ringload::Error>(yielded)
        });
        thread::sleep(Duration::from_micros(100 * after));
        cancellation.cancel();
        match in_time("a cancelled load", move || loading.join().unwrap()) {
            Ok(yielded) => {
                assert!(yielded.iter().all(|it| it.bytes() == model.tensors[it.name()].bytes));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
    }
}

/// A future is dropped while reads write to its buffers: they are freed after the last read. Under
/// AddressSanitizer, and in debug builds with its poison, a write to freed memory would be noticed.
#[test]
fn buffers_of_a_dropped_future_are_freed_when_no_read_writes_to_them() {
    struct Buffer(Vec<u8>, Arc<AtomicBool>);
    impl AsMut<[u8]> for Buffer {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }
    impl Drop for Buffer {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Release);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let (_, file) = local_model(directory.path());
    for after in 0..20 {
        let freed = Arc::new(AtomicBool::new(false));
        let buffer = Buffer(vec![0; 20_000_000], Arc::clone(&freed));
        let request = OwnedReadRequest::new(Location::parse(&file).unwrap(), 0, buffer);
        let mut reading = Loader::new().read_into_async(vec![request]).boxed();
        poll_until(reading.as_mut(), Instant::now() + Duration::from_micros(200 * after));
        drop(reading);
        until("the buffer is freed", || freed.load(Ordering::Acquire));
    }
}

#[test]
fn async_forms_return_what_the_blocking_ones_do() {
    let directory = tempfile::tempdir().unwrap();
    let (model, file) = local_model(directory.path());
    let loader = Loader::new();
    let forever = Instant::now() + Duration::from_secs(600);
    let (sender, results) = std::sync::mpsc::channel();
    let (all, path) = (model.clone(), file.clone());
    let mut work = async move {
        let checkpoint = Arc::new(loader.open_async(&*path).await?);
        let loaded = loader.load_checkpoint_async(Arc::clone(&checkpoint)).await?;
        assert_eq!(loaded.len(), all.tensors.len());
        let tensor = loader.read_tensor_async(&checkpoint, "t3", None).await?;
        assert!(tensor.bytes() == all.tensors["t3"].bytes);
        let mut stream = loader.stream_async(&*path).await?;
        let mut count = 0;
        // Compiles with and without `StreamExt`.
        while let Some(tensor) = stream.next().await {
            let tensor = tensor?;
            assert!(tensor.bytes() == all.tensors[tensor.name()].bytes);
            count += 1;
        }
        assert_eq!((count, stream.summary().tensors), (all.tensors.len(), all.tensors.len()));
        let location = Location::parse(&path)?;
        let request = OwnedReadRequest::new(location.clone(), 3, vec![0_u8; 1000]);
        let (buffers, outcome) = loader.read_into_async(vec![request]).await?;
        assert_eq!(outcome?.bytes, 1000);
        assert!(buffers[0] == all.file[3..1003]);
        let beyond = OwnedReadRequest::new(location, all.file.len() as u64, vec![7_u8; 1]);
        let (buffers, outcome) = loader.read_into_async(vec![beyond]).await?;
        assert_eq!((buffers[0][0], outcome.unwrap_err().kind()), (7, ErrorKind::InvalidInput));
        Ok::<_, ringload::Error>(())
    }
    .map(|outcome| sender.send(outcome).unwrap())
    .boxed();
    assert!(poll_until(work.as_mut(), forever));
    results.recv().unwrap().unwrap();
}

/// A loader keeps its connections when a clone of it gets a cancellation, and its other clones go on.
#[test]
fn only_the_calls_of_the_cancelled_loader_end() {
    let model = Model::small();
    let server = model.serve(|_, request| request.right());
    let loader = Loader::new();
    let cancellation = Cancellation::new();
    let cancelled = loader.clone().cancellation(&cancellation);
    model.load(&cancelled, &server.url()).unwrap();
    cancellation.cancel();
    assert_eq!(load(&cancelled, &server.url()).unwrap_err().kind(), ErrorKind::Cancelled);
    model.load(&loader, &server.url()).unwrap();
}
