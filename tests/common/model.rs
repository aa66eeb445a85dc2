//! A checkpoint in memory, its expected tensors, and loads of it from a scripted server.

use super::fault_server::{FaultServer, Reply, Request};
use super::{Expected, in_time};
use ringload::{ErrorKind, Loader, Result, RetryLimits, Summary};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
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

    /// Serves the file. `script` decides all replies but those to the opening requests.
    pub fn serve(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> FaultServer {
        FaultServer::start(self.file.clone(), move |_, request| match request.nth.checked_sub(1) {
            Some(number) => script(number, request),
            None => request.right(),
        })
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

    /// Checks that a load fails with the replies of `script`; returns the kind and text of the error.
    #[track_caller]
    pub fn fails(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (ErrorKind, String, usize) {
        let server = self.serve(script);
        let began = Instant::now();
        let error = self.load(&loader(), &server.url()).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10), "{error} after {:?}", began.elapsed());
        assert!(error.to_string().contains(&server.url()), "{error}");
        (error.kind(), error.to_string(), server.seen().len() - 1)
    }
}

/// Limits with which a load from a broken server fails quickly.
pub fn limits() -> RetryLimits {
    let mut limits = RetryLimits::default();
    limits.attempts = 4;
    limits.total = Duration::from_secs(10);
    limits.connect = Duration::from_secs(2);
    limits.first_byte = Duration::from_millis(500);
    limits.stalled = Duration::from_millis(300);
    limits
}

/// A loader with these limits and one engine.
pub fn loader() -> Loader {
    Loader::new().engines(1).retry_limits(limits())
}

/// A script whose first reply is `broken` and whose others are right.
pub fn once(
    broken: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(usize, &Request) -> Reply + Send + Sync + 'static {
    move |number, request| if number == 0 { broken(request) } else { request.right() }
}
