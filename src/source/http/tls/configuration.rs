//! The configuration of TLS: which authorities are trusted.
//!
//! ```text
//! SSL_CERT_FILE, SSL_CERT_DIR, else the system's certificates
//!   + REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE (for a loader that follows the environment)
//!   + AWS_CA_BUNDLE, else ca_bundle of the AWS profile (once a bucket of S3 is opened)
//! ```
//!
//! A file that one of these names and that cannot be used is an error, which names what named it. The
//! certificate of a server that is itself in such a file is trusted like one that an authority in the
//! file has issued.

use super::certificates::NamedCertificates;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{CA_BUNDLES, RemoteOptions};
use crate::sys::read_named;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConfig, RootCertStore, SupportedCipherSuite};
use std::path::Path;
use std::sync::Arc;

/// The configurations of TLS 1.2 and 1.3 on aws-lc-rs.
pub(in super::super) struct TlsConfiguration {
    /// For connections whose records are opened here: with AES-GCM alone.
    pub taken_over: Arc<ClientConfig>,
    /// For connections that rustls serves: with all ciphers.
    pub by_rustls: ClientConfig,
}

/// The configurations of TLS. `of_profile` is the `ca_bundle` of the AWS profile.
///
/// # Errors
/// Those of reading a named file, and [`InvalidInput`](ErrorKind::InvalidInput) for one without
/// certificates; [`NotFound`](ErrorKind::NotFound) if no authority is known.
pub(in super::super) fn configuration(
    options: &RemoteOptions,
    of_profile: Option<&Path>,
) -> Result<TlsConfiguration> {
    let mut named = Vec::new();
    if let Some(path) = options.env("SSL_CERT_FILE") {
        named.extend(certificates("SSL_CERT_FILE", Path::new(&path))?);
    }
    let bundle = options.env("AWS_CA_BUNDLE");
    let bundle = match &bundle {
        Some(path) => Some(("AWS_CA_BUNDLE", Path::new(path))),
        None => of_profile.map(|path| ("the ca_bundle of the AWS profile", path)),
    };
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for error in native.errors {
        tracing::warn!(%error, "some root certificates cannot be read");
    }
    let of_requests = CA_BUNDLES.iter().find_map(|name| Some((*name, options.env(name)?)));
    if let Some((name, path)) = &of_requests {
        // requests takes a directory, too, which SSL_CERT_DIR names for all programs.
        let is_directory = Path::new(path).is_dir();
        named.extend(if is_directory { Vec::new() } else { certificates(name, Path::new(path))? });
    }
    if let Some((what, path)) = bundle {
        named.extend(certificates(what, path)?);
    }
    roots.add_parsable_certificates(named.iter().cloned());
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // AES-128 first, as in browsers: as safe as AES-256 against known attacks, and a quarter
    // cheaper.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    let provider = Arc::new(provider);
    let verifier = NamedCertificates::verifier(Arc::clone(&provider), roots, named)?;
    let configured = |suites: Vec<SupportedCipherSuite>| {
        let provider = CryptoProvider { cipher_suites: suites, ..(*provider).clone() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| {
                Error::new(ErrorKind::Unsupported, "TLS cannot be set up").with_source(e)
            })?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::clone(&verifier));
        Ok::<_, Error>(config.with_no_client_auth())
    };
    let all = provider.cipher_suites.clone();
    let aes = all.iter().copied().filter(|suite| is_aes_gcm(suite.suite())).collect();
    let mut taken_over = configured(aes)?;
    taken_over.enable_secret_extraction = true;
    Ok(TlsConfiguration { taken_over: Arc::new(taken_over), by_rustls: configured(all)? })
}

/// Whether records of the `suite` can be opened here.
pub(in super::super) fn is_aes_gcm(suite: CipherSuite) -> bool {
    is_aes_128(suite)
        || matches!(
            suite,
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The certificates in the file at `path`, which `what` names.
fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read_named(what, path, "file of certificates")?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let unusable = || {
        let sentence = format!(
            "{what} cannot be used: {} holds no certificates in the PEM format (-----BEGIN \
             CERTIFICATE-----); check the path",
            path.display()
        );
        Error::invalid_input(sentence)
    };
    match found {
        Ok(found) if found.is_empty() => Err(unusable()),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable().with_source(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_without_certificates_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let [empty, missing] = ["empty", "missing"].map(|name| directory.path().join(name));
        std::fs::write(&empty, "no certificate").unwrap();
        for (path, kind) in [
            (directory.path(), ErrorKind::InvalidInput),
            (&empty, ErrorKind::InvalidInput),
            (&missing, ErrorKind::NotFound),
        ] {
            let text = path.to_str().unwrap();
            for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
                let options = RemoteOptions::with_variables(&[(variable, text)]);
                let error = configuration(&options, None).err().unwrap();
                assert_eq!(error.kind(), kind, "{error}");
                let error = error.to_string();
                assert!(error.starts_with(variable) && error.contains(text), "{error}");
            }
            let nothing = RemoteOptions::with_variables(&[]);
            let error = configuration(&nothing, Some(path)).err().unwrap().to_string();
            assert!(error.starts_with("the ca_bundle of the AWS profile"), "{error}");
        }
        // requests and curl take no other file than these.
        for variable in CA_BUNDLES {
            let options = RemoteOptions::with_variables(&[(variable, empty.to_str().unwrap())]);
            let error = configuration(&options, None).err().unwrap().to_string();
            assert!(error.starts_with(variable), "{error}");
        }
        // The variable comes before the profile.
        let options = RemoteOptions::with_variables(&[("AWS_CA_BUNDLE", empty.to_str().unwrap())]);
        let error = configuration(&options, Some(&missing)).err().unwrap().to_string();
        assert!(error.starts_with("AWS_CA_BUNDLE"), "{error}");
    }
}
