//! Whole loads of objects whose store keeps a checksum.

use crate::error::{Error, ErrorKind, Result};
use crate::fault_server::{End, FaultServer, Framing, Request};
use crate::load::{Loader, ReadRequest, Summary};
use crate::location::{Location, ObjectUri};
use crate::options::{MemoryLimit, Order};
use crate::source::http::{Client, RequestPolicy};
use crate::source::list_entry::{ListDepth, ListEntry};
use crate::source::store::Store;
use crate::source::verify::Checksum;
use crate::test_files::file_at;
use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use crc_fast::CrcAlgorithm;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::SystemTime;

/// A web server that keeps a checksum.
struct Keeper {
    store: Arc<dyn Store>,
    checksum: Option<Checksum>,
}

#[async_trait]
impl RequestPolicy for Keeper {
    async fn authorize(
        &self,
        client: &Arc<Client>,
        head: &mut http::request::Parts,
        now: SystemTime,
    ) -> Result<()> {
        self.store.authorize(client, head, now).await
    }
}

#[async_trait]
impl Store for Keeper {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    fn url(&self, key: &str) -> Result<http::Uri> {
        self.store.url(key)
    }

    async fn entries(
        &self,
        client: &Arc<Client>,
        key: &str,
        depth: ListDepth,
    ) -> Result<Option<Vec<ListEntry>>> {
        self.store.entries(client, key, depth).await
    }

    async fn checksum(&self, _: &Arc<Client>, _: &str) -> Result<Option<Checksum>> {
        Ok(self.checksum)
    }
}

fn crc(algorithm: CrcAlgorithm, bytes: &[u8]) -> u64 {
    crc_fast::checksum(algorithm, bytes)
}

fn sha256(bytes: &[u8]) -> Checksum {
    Checksum::Sha256(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

/// All the kinds.
fn checksums(bytes: &[u8]) -> [Checksum; 4] {
    [
        Checksum::Crc64Nvme(crc(CrcAlgorithm::Crc64Nvme, bytes)),
        Checksum::Crc32c(crc(CrcAlgorithm::Crc32Iscsi, bytes) as u32),
        Checksum::Crc32(crc(CrcAlgorithm::Crc32IsoHdlc, bytes) as u32),
        sha256(bytes),
    ]
}

fn uri(server: &FaultServer) -> ObjectUri {
    match Location::parse(&server.url()).unwrap() {
        Location::Object(uri) => uri,
        Location::File(_) => panic!("no object"),
    }
}

/// A loader that verifies, and for which the server's store keeps `checksum`.
fn verifying(server: &FaultServer, checksum: Option<Checksum>) -> Loader {
    let (loader, uri) = (Loader::new().verify(true).connections(1), uri(server));
    let opener = loader.opener();
    let (client, stores) = (opener.remote.client(&opener.options).unwrap(), opener.remote.stores());
    let store = stores.of(client, &uri).unwrap();
    stores.replace(&uri, Arc::new(Keeper { store, checksum }));
    loader
}

fn drain(loader: &Loader, url: &str) -> Result<Summary> {
    let mut stream = loader.stream(url)?;
    for tensor in stream.by_ref() {
        drop(tensor?);
    }
    Ok(stream.summary())
}

/// A header beyond the first request, tensors of all sizes, none among them.
fn file() -> Vec<u8> {
    file_at("t", &[0, 700_000, 3, 0, 1, 1_500_000, 40_000, 0, 900_000, 0], 80_000)
}

#[test]
fn a_right_object_is_verified_however_it_is_read() {
    let file = file();
    let server = FaultServer::start(file.clone(), |_, request| request.right());
    for checksum in checksums(&file) {
        for order in [Order::Completion, Order::File] {
            for limit in [MemoryLimit::Unlimited, MemoryLimit::Min, MemoryLimit::Bytes(2 << 20)] {
                for engines in [1, 3] {
                    let loader = verifying(&server, Some(checksum));
                    let loader = loader.order(order.clone()).memory_limit(limit).engines(engines);
                    let summary = drain(&loader, &server.url()).unwrap();
                    assert_eq!(summary.verified_objects, 1, "{checksum:?} {order:?} {limit:?}");
                }
            }
        }
    }
}

/// Ranges that come late, broken, twice: their bytes count once.
#[test]
fn what_is_repeated_is_not_counted_twice() {
    let file = file();
    let server = FaultServer::start(file.clone(), |number, request| {
        let right = request.right();
        let more = |body: &mut Vec<u8>| body.extend_from_slice(b"and more");
        match number % 4 {
            0 => right,
            1 => right.cut(1000, End::Reset),
            2 => right.framed(Framing::Close).changed(more),
            _ => right.framed(Framing::Chunked(999)),
        }
    });
    for checksum in checksums(&file) {
        let loader = verifying(&server, Some(checksum)).memory_limit(MemoryLimit::Bytes(2 << 20));
        let summary = drain(&loader, &server.url()).unwrap();
        assert_eq!(summary.verified_objects, 1);
        assert!(!summary.retries.is_empty());
    }
}

#[test]
fn a_damaged_byte_fails_the_load_before_its_end() {
    let file = file();
    let places = [0, 8, 50_000, 79_999, 80_000, 80_001, 1_000_000, file.len() - 1];
    for place in places {
        let server = FaultServer::start(file.clone(), move |_, request: &Request| {
            let (first, last) = request.range().unwrap();
            let damage = |body: &mut Vec<u8>| {
                // Of the padding of the header, which may be any white space, and of data.
                if (first..=last).contains(&place) && place >= 50_000 {
                    body[place - first] = if place < 80_000 { b'\n' } else { !body[place - first] };
                }
            };
            request.right().changed(damage)
        });
        for mut checksum in checksums(&file) {
            if place < 50_000 {
                // What the store keeps is of another object.
                checksum = checksums(&file[1..])[0];
            }
            let loader = verifying(&server, Some(checksum)).memory_limit(MemoryLimit::Min);
            let error = drain(&loader, &server.url()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{place}: {error}");
            assert!(error.to_string().contains(&server.url()), "{error}");
        }
        // Without verifying, nobody knows.
        assert!(drain(&Loader::new(), &server.url()).is_ok());
    }
}

#[test]
fn every_load_of_an_open_checkpoint_is_verified() {
    let file = file();
    let honest = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let truth = Arc::clone(&honest);
    let server = FaultServer::start(file.clone(), move |_, request| {
        let right = request.right();
        match truth.load(std::sync::atomic::Ordering::Relaxed) {
            true => right,
            false => right.changed(|body| body[0] ^= 1),
        }
    });
    let checksum = Some(checksums(&file)[0]);
    let loader = verifying(&server, checksum);
    let checkpoint = Arc::new(loader.open(server.url().as_str()).unwrap());
    for _ in 0..2 {
        let loaded = loader.load_checkpoint(Arc::clone(&checkpoint)).unwrap();
        assert_eq!(loaded.summary().verified_objects, 1);
    }
    honest.store(false, std::sync::atomic::Ordering::Relaxed);
    let error = loader.load_checkpoint(checkpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// Nothing but a header: checked where it is read.
#[test]
fn an_object_without_data_is_verified_too() {
    for sizes in [&[][..], &[0, 0]] {
        let file = file_at("t", sizes, 0);
        let server = FaultServer::start(file.clone(), |_, request| request.right());
        for checksum in checksums(&file) {
            let loader = verifying(&server, Some(checksum));
            assert_eq!(drain(&loader, &server.url()).unwrap().verified_objects, 1);
        }
        let loader = verifying(&server, Some(sha256(b"another")));
        let error = drain(&loader, &server.url()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T>, kind: ErrorKind, says: &str) {
    let error: Error = outcome.err().expect("a refusal");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn what_cannot_be_verified_is_refused_before_anything_is_loaded() {
    let file = file();
    let server = FaultServer::start(file.clone(), |_, request| request.right());
    let url = server.url();
    let url = url.as_str();
    let checksum = Some(checksums(&file)[0]);
    let (unsupported, input) = (ErrorKind::Unsupported, ErrorKind::InvalidInput);

    refused(verifying(&server, None).load(url), unsupported, "has no checksum of the whole object");
    // A web server keeps none.
    refused(Loader::new().verify(true).load(url), unsupported, &uri(&server).to_string());
    // A past fault: users of a web server were told to upload the file with a checksum.
    let error = Loader::new().verify(true).load(url).err().unwrap().to_string();
    assert!(error.contains("the option manifest") && !error.contains("upload"), "{error}");

    let some = verifying(&server, checksum).tensors(["t000001"]);
    refused(some.load(url), input, "needs all tensors");
    let all = verifying(&server, checksum).tensors(["t*"]);
    assert_eq!(drain(&all, url).unwrap().verified_objects, 1);

    let mut part = [0; 100];
    let location = Location::parse(url).unwrap();
    let mut request = [ReadRequest::new(location, 0, &mut part)];
    let read = verifying(&server, checksum).read_into(&mut request, |_| ControlFlow::Continue(()));
    refused(read, input, "whole objects");

    let unverified = Arc::new(Loader::new().open(url).unwrap());
    let late = verifying(&server, checksum).load_checkpoint(unverified);
    refused(late, input, "opened without its checksums");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, &file).unwrap();
    refused(Loader::new().verify(true).load(path.as_path()), unsupported, "is a file");
}
