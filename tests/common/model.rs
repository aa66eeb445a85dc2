//! A checkpoint in memory, its expected tensors, and loads of it from a scripted server.

use super::fault_server::{FaultServer, Reply, Request};
use super::{Expected, PATIENCE, in_time};
use ringload::{ErrorKind, Loader, Result, RetryLimits, Summary};
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A safetensors file in memory and its expected tensors.
#[derive(Clone)]
pub struct Model {
    pub file: Vec<u8>,
    pub tensors: Arc<BTreeMap<String, Expected>>,
}

impl Model {
    pub fn new(sizes: &[usize]) -> Self {
        let tensors: Vec<_> = (sizes.iter().enumerate())
            .map(|(seed, &size)| Expected::of_bytes(format!("t{seed}"), size, seed as u64))
            .collect();
        Self::of(&tensors)
    }

    /// A file with these tensors.
    pub fn of(tensors: &[Expected]) -> Self {
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype.into(), tensor.shape.clone(), &tensor.bytes);
            (&tensor.name, view.unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        let tensors = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.clone()));
        Self { file, tensors: Arc::new(tensors.collect()) }
    }

    /// 64 KiB of data, more than the first request returns.
    pub fn small() -> Self {
        Self::new(&[40_000, 0, 25_536])
    }

    pub fn data_offset(&self) -> usize {
        8 + u64::from_le_bytes(self.file[..8].try_into().unwrap()) as usize
    }

    /// Serves the file. `script` decides all replies but those to the opening requests, and gets
    /// the number of the request among the others.
    pub fn serve(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> FaultServer {
        let (data_offset, numbers) = (self.data_offset(), AtomicUsize::new(0));
        FaultServer::start(self.file.clone(), move |_, request| {
            match is_of_data(request, data_offset) {
                true => script(numbers.fetch_add(1, Ordering::Relaxed), request),
                false => request.right(),
            }
        })
    }

    /// How many ranges of the tensors' data were requested.
    fn ranges(&self, server: &FaultServer) -> usize {
        let data_offset = self.data_offset();
        server.seen().iter().filter(|request| is_of_data(request, data_offset)).count()
    }

    /// Loads the file and checks every tensor.
    pub fn load(&self, loader: &Loader, url: &str) -> Result<Summary> {
        let (loader, url, tensors) = (loader.clone(), url.to_owned(), Arc::clone(&self.tensors));
        in_time(&url.clone(), move || {
            let mut stream = loader.stream(url.as_str())?;
            let mut left = tensors.len();
            for tensor in stream.by_ref() {
                let tensor = tensor?;
                assert!(
                    tensor.bytes() == tensors[tensor.name()].bytes,
                    "{} is wrong",
                    tensor.name()
                );
                left -= 1;
            }
            assert_eq!(left, 0, "tensors are missing");
            Ok(stream.summary())
        })
    }

    /// Checks that a load succeeds with the replies of `script`; returns its retries.
    #[track_caller]
    pub fn recovers(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> BTreeMap<&'static str, u64> {
        let server = self.serve(script);
        self.load(&loader(), &server.url()).unwrap().retries
    }

    /// Checks that a load succeeds although the first reply is `late`, as each other one that is as
    /// late on a busy machine is. Returns the reasons of its retries.
    #[track_caller]
    pub fn recovers_from_late(
        &self,
        late: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> BTreeSet<&'static str> {
        let server = self.serve(once(late));
        let mut limits = impatient();
        limits.attempts = 100;
        let loader = loader().retry_limits(limits);
        let retries = self.load(&loader, &server.url()).unwrap().retries;
        assert_eq!(retries.values().sum::<u64>(), self.ranges(&server) as u64 - 1, "{retries:?}");
        retries.into_keys().collect()
    }

    /// Checks that a load fails with the replies of `script`; returns the kind and text of the
    /// error, and the number of requests for ranges.
    #[track_caller]
    pub fn fails(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (ErrorKind, String, usize) {
        self.fails_with(&loader(), script)
    }

    /// As [`fails`](Self::fails), with replies that are late.
    #[track_caller]
    pub fn fails_from_late(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (ErrorKind, String, usize) {
        self.fails_with(&loader().retry_limits(impatient()), script)
    }

    /// As [`fails`](Self::fails), with this loader.
    #[track_caller]
    pub fn fails_with(
        &self,
        loader: &Loader,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (ErrorKind, String, usize) {
        let server = self.serve(script);
        let error = self.load(loader, &server.url()).unwrap_err();
        assert!(error.to_string().contains(&server.url()), "{error}");
        (error.kind(), error.to_string(), self.ranges(&server))
    }
}

/// Whether the request asks for tensors; the requests that open an object begin with its header.
fn is_of_data(request: &Request, data_offset: usize) -> bool {
    request.range().is_some_and(|(first, _)| first >= data_offset)
}

/// Limits with which a load from a broken server fails after few attempts. A server that is slow
/// because the machine is busy is not broken.
pub fn limits() -> RetryLimits {
    let mut limits = RetryLimits::default();
    limits.attempts = 4;
    limits.total = 4 * PATIENCE;
    (limits.connect, limits.first_byte, limits.stalled) = (PATIENCE, PATIENCE, PATIENCE);
    limits
}

/// Limits with which a load gives up late replies soon. On a busy machine any reply may be late.
pub fn impatient() -> RetryLimits {
    let mut limits = limits();
    limits.first_byte = Duration::from_millis(500);
    limits.stalled = Duration::from_millis(300);
    limits
}

/// A loader with [`limits`] and one engine.
pub fn loader() -> Loader {
    Loader::new().engines(1).retry_limits(limits())
}

/// A script whose first reply is `broken` and whose others are right.
pub fn once(
    broken: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(usize, &Request) -> Reply + Send + Sync + 'static {
    move |number, request| if number == 0 { broken(request) } else { request.right() }
}
