//! Certificates of an authority that a test makes, and a server that has one.

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Makes a certificate authority in `directory` (`ca.pem`), and a certificate of it for this machine
/// (`server.pem`, `server.key`).
pub fn make(directory: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj '/CN=ringload test authority' -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out server.pem";
    let mut openssl = Command::new("sh");
    let made = openssl.args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// What accepts connections with the certificate that [`make`] has made in `directory`.
pub fn acceptor(directory: &Path) -> TlsAcceptor {
    acceptor_by(directory, rustls::crypto::aws_lc_rs::default_provider())
}

/// The same, with the cryptography of `provider`.
pub fn acceptor_by(directory: &Path, provider: CryptoProvider) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}
