//! Shared libraries of NVIDIA, which are loaded when they are first needed.
//!
//! A library that the process has loaded already, because another crate of the build links it (as
//! candle does), is found and not loaded a second time. Without the feature `cuda` of this crate no
//! library is loaded: opening one fails with a sentence that names the feature.

#[cfg(feature = "cuda")]
use libloading::Library;

/// Takes the place of a library where the feature was left out. There is no value of it.
#[cfg(not(feature = "cuda"))]
enum Library {}

/// A library that is loaded. Dropping it unloads it.
pub(super) struct SharedLibrary(Library);

#[cfg(feature = "cuda")]
impl SharedLibrary {
    /// Loads the first of the libraries called `names` that exists.
    ///
    /// # Errors
    /// The sentence `missing`, if none can be loaded.
    pub fn open(names: &[&'static str], missing: &str) -> Result<Self, String> {
        let open = |&name: &&'static str| {
            // SAFETY: loading NVIDIA's library runs its initialisers, as intended.
            unsafe { Library::new(name) }.ok()
        };
        names.iter().find_map(open).map(Self).ok_or_else(|| missing.to_owned())
    }

    /// Looks up a function.
    ///
    /// # Safety
    /// `F` is the type of the function called `name`, and is not used after the library is dropped.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller guarantees the type.
        unsafe { self.0.get::<F>(name) }.ok().map(|function| *function)
    }
}

#[cfg(not(feature = "cuda"))]
impl SharedLibrary {
    /// Fails.
    ///
    /// # Errors
    /// A sentence that names the feature which was left out.
    pub fn open(_: &[&'static str], _: &str) -> Result<Self, String> {
        Err("this program was built without support for GPUs; build it with the feature `cuda` of \
             the crate ringload, or load to cpu"
            .to_owned())
    }

    /// Never called, as there is no library.
    ///
    /// # Safety
    /// Always safe.
    pub unsafe fn function<F: Copy>(&self, _: &str) -> Option<F> {
        match self.0 {}
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use crate::{Device, ErrorKind, Loader};

    // A server that left the feature out got no hint of it: a load to a GPU has to say what is missing.
    #[test]
    fn without_the_feature_a_load_to_a_gpu_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        let header = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length[..], header, &[7]].concat()).unwrap();
        let loader = Loader::new().device(Device::cuda(1));
        let error = loader.load(path.to_str().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("the feature `cuda` of the crate ringload"), "{error}");
        assert!(error.to_string().contains("cuda:1"), "{error}");
        assert_eq!(crate::gpus().unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
