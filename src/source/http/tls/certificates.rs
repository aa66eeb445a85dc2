//! Verifies the certificates of servers.
//!
//! Authorities are trusted as usual. In addition a server's own certificate is trusted if it is, byte
//! for byte, in a file that the user named. `openssl req -x509` makes such certificates, which are
//! marked as authorities and may therefore not be a server's certificate by the rules of the web. curl
//! and Python accept them, too. The name and the validity of the certificate are checked all the same,
//! and the server has to prove that it has the key.

use crate::error::{Error, ErrorKind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

type Verified<T> = std::result::Result<T, rustls::Error>;

/// Verifies certificates against authorities, and against certificates that the user named.
#[derive(Debug)]
pub(super) struct NamedCertificates {
    authorities: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl NamedCertificates {
    /// A verifier that trusts the authorities `roots`, and servers whose certificate is in `named`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there are no authorities.
    pub fn verifier(
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<dyn ServerCertVerifier>> {
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let authorities = built.map_err(|error| {
            let sentence = "no root certificates were found on this system; install the package \
                            ca-certificates, or name a file of certificates with SSL_CERT_FILE";
            Error::new(ErrorKind::NotFound, sentence).with_source(error)
        })?;
        Ok(Arc::new(Self { authorities, named }))
    }
}

impl ServerCertVerifier for NamedCertificates {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Verified<ServerCertVerified> {
        let by_authority = self.authorities.verify_server_cert(
            certificate,
            intermediates,
            name,
            ocsp_response,
            now,
        );
        match by_authority {
            // These reasons are given only for certificates that are valid now.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if self.named.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Verified<HandshakeSignatureValid> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
