//! The server of the tests: rustls makes its handshake, and the test writes its records.

use super::handshake::{Connected, Next, connect, receive, step};
use super::keys::RecordKey;
use super::record::{Record, Version};
use super::session::Session;
use crate::test_certificates;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::kernel::KernelConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    ClientConfig, ContentType, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion, version,
};
use std::io;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, duplex};

/// The suites whose records are opened here.
pub(super) static SUITES: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

/// The authority, and the certificate of the server with its key, each with the name of its file. They
/// are made once, and not left in a directory: what is static is never dropped.
static CERTIFICATES: LazyLock<[(&str, Vec<u8>); 3]> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    test_certificates::make(directory.path());
    ["ca.pem", "server.pem", "server.key"]
        .map(|name| (name, std::fs::read(directory.path().join(name)).unwrap()))
});

/// The content of a file of certificates.
fn pem(name: &str) -> &'static [u8] {
    &CERTIFICATES.iter().find(|(of, _)| *of == name).unwrap().1
}

/// A directory with the certificates.
pub(super) fn certificates() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in &*CERTIFICATES {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

/// The configurations of both sides, which remember sessions.
pub(super) struct Sides {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

impl Sides {
    pub fn of(suite: SupportedCipherSuite) -> Self {
        Self::with_store(suite, Arc::new(ClientSessionMemoryCache::new(32)))
    }

    /// With sessions of the client in `store`.
    pub fn with_store(suite: SupportedCipherSuite, store: Arc<dyn ClientSessionStore>) -> Self {
        let certificate = |name: &str| CertificateDer::from_pem_slice(pem(name)).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem("server.key")).unwrap();
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let provider = Arc::new(provider);
        let versions: &[&SupportedProtocolVersion] = match suite {
            SupportedCipherSuite::Tls12(_) => &[&version::TLS12],
            SupportedCipherSuite::Tls13(_) => &[&version::TLS13],
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client.with_protocol_versions(versions).unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.enable_secret_extraction = true;
        client.resumption = Resumption::store(store);
        let server = ServerConfig::builder_with_provider(provider);
        let server = server.with_protocol_versions(versions).unwrap().with_no_client_auth();
        let mut server = server.with_single_cert(vec![certificate("server.pem")], key).unwrap();
        server.enable_secret_extraction = true;
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// Without tickets after the handshake, which would be the first records of the server.
    pub fn without_tickets(suite: SupportedCipherSuite) -> Self {
        let mut sides = Self::of(suite);
        Arc::make_mut(&mut sides.server).send_tls13_tickets = 0;
        sides
    }

    /// A connection within this process.
    pub async fn connect(&self) -> (Connected, Peer) {
        let (mut near, mut far) = duplex(1 << 20);
        let connecting = connect(Arc::clone(&self.client), name(), &mut near);
        let (connected, peer) =
            tokio::join!(connecting, Peer::accept(Arc::clone(&self.server), &mut far));
        let (mut connected, peer) = (connected.unwrap(), peer.unwrap());
        drop(far);
        // What the server has sent after the handshake, its tickets.
        tokio::io::AsyncReadExt::read_to_end(&mut near, &mut connected.early).await.unwrap();
        (connected, peer)
    }
}

/// A session without tickets, and its server.
pub(super) fn session(suite: SupportedCipherSuite) -> (Session, Peer) {
    let sides = Sides::without_tickets(suite);
    let (connected, peer) = block_on(sides.connect());
    assert_eq!(connected.early, b"");
    (connected.session, peer)
}

pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// The server of a connection after its handshake.
pub(super) struct Peer {
    pub version: Version,
    kernel: KernelConnection<ServerConnectionData>,
    pub incoming: RecordKey,
    pub outgoing: RecordKey,
}

impl Peer {
    /// Makes the handshake over `socket`, and sends the tickets.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        config: Arc<ServerConfig>,
        socket: &mut S,
    ) -> io::Result<Self> {
        let mut connection = UnbufferedServerConnection::new(config).unwrap();
        let (mut incoming, mut offered, mut outgoing) = (Vec::new(), 0, Vec::new());
        loop {
            let status = connection.process_tls_records(&mut incoming[..offered]);
            let (next, used) = step(status, &mut outgoing);
            incoming.drain(..used);
            offered -= used;
            match next.map_err(io::Error::other)? {
                Next::Again => {}
                Next::Send => socket.write_all(&std::mem::take(&mut outgoing)).await?,
                Next::Receive => offered = receive(socket, &mut incoming, offered).await?,
                Next::Done => break,
            }
        }
        let (secrets, kernel) = connection.dangerous_into_kernel_connection().unwrap();
        let version = match kernel.protocol_version() {
            rustls::ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => Version::Tls12,
        };
        let incoming = RecordKey::new(version, secrets.rx).unwrap();
        let outgoing = RecordKey::new(version, secrets.tx).unwrap();
        Ok(Self { version, kernel, incoming, outgoing })
    }

    /// A record with `content` of type `kind`.
    pub fn record(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        self.outgoing.seal(kind, content, &mut record).unwrap();
        record
    }

    pub fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(ContentType::ApplicationData, content)
    }

    pub fn alert(&mut self, level: u8, description: u8) -> Vec<u8> {
        self.record(ContentType::Alert, &[level, description])
    }

    /// A record of TLS 1.3 with `padding` bytes of padding.
    pub fn padded(&mut self, content: &[u8], padding: usize) -> Vec<u8> {
        let plaintext = [content, &[23], &vec![0; padding]].concat();
        let mut record = Vec::new();
        self.outgoing
            .seal_plaintext(ContentType::ApplicationData, &plaintext, &mut record)
            .unwrap();
        record
    }

    /// A key update, after which the next records have another key.
    pub fn key_update(&mut self, is_requested: bool) -> Vec<u8> {
        let record = self.record(ContentType::Handshake, &[24, 0, 0, 1, u8::from(is_requested)]);
        self.next_outgoing();
        record
    }

    pub fn next_outgoing(&mut self) {
        let secrets = self.kernel.update_tx_secret().unwrap();
        self.outgoing = RecordKey::new(self.version, secrets).unwrap();
    }

    /// The records that the client has sent, with their types. Follows its key updates.
    pub fn opened(&mut self, mut sent: &[u8]) -> Vec<(ContentType, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(record) = Record::first(self.version, sent).unwrap() {
            let mut plaintext = vec![0; record.plaintext_bytes()];
            self.incoming.open(&record, &mut plaintext).unwrap();
            let (kind, len) = record.content(&plaintext).unwrap();
            plaintext.truncate(len);
            if kind == ContentType::Handshake && self.version == Version::Tls13 {
                let secrets = self.kernel.update_rx_secret().unwrap();
                self.incoming = RecordKey::new(self.version, secrets).unwrap();
            }
            all.push((kind, plaintext));
            sent = &sent[record.len_bytes()..];
        }
        assert_eq!(sent, b"");
        all
    }
}
