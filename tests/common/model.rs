//! A checkpoint in memory, what has to come out of it, and loads of it from a scripted server.

use super::fault_server::{FaultServer, Reply, Request};
use super::{Expected, in_time};
use ringload::{ErrorKind, Loader, Result, RetryLimits, Summary};
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A file of tensors of `sizes` bytes, and what has to come out of it.
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

    /// 64 KiB of data, more than what is read with the header.
    pub fn small() -> Self {
        Self::new(&[40_000, 0, 25_536])
    }

    pub fn data_offset(&self) -> usize {
        8 + u64::from_le_bytes(self.file[..8].try_into().unwrap()) as usize
    }

    /// Serves it; answers go as `script` says, those to the opening request are right.
    pub fn serve(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> FaultServer {
        FaultServer::start(self.file.clone(), move |_, request| match request.nth.checked_sub(1) {
            Some(number) => script(number, request),
            None => request.right(),
        })
    }

    /// Loads it and checks every tensor that comes.
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

    /// The retries of a load that succeeds although ranges are answered as `script` says.
    #[track_caller]
    pub fn recovers(
        &self,
        script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> BTreeMap<&'static str, u64> {
        let server = self.serve(script);
        self.load(&loader(), &server.url()).unwrap().retries
    }

    /// The kind and the sentence of the error of a load whose ranges are answered like this.
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

/// Limits that make a load of a broken server short.
pub fn limits() -> RetryLimits {
    let mut limits = RetryLimits::default();
    limits.attempts = 4;
    limits.total = Duration::from_secs(10);
    limits.connect = Duration::from_secs(2);
    limits.first_byte = Duration::from_millis(500);
    limits.stalled = Duration::from_millis(300);
    limits
}

/// A loader of these limits, on one engine.
pub fn loader() -> Loader {
    Loader::new().engines(1).retry_limits(limits())
}

/// The first answer is `broken`, the others are right.
pub fn once(
    broken: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(usize, &Request) -> Reply + Send + Sync + 'static {
    move |number, request| if number == 0 { broken(request) } else { request.right() }
}
