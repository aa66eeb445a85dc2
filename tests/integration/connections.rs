//! How connections are opened, shared and reused.

#[cfg(feature = "cli")]
use crate::common::certificates;
use crate::common::fault_server::FaultServer;
use crate::common::model::{Model, loader};

/// The connections that the requests came on, in the order of the requests.
fn connections(server: &FaultServer) -> Vec<usize> {
    server.seen().iter().map(|request| request.connection).collect()
}

/// The connection that had received a header was of no use for tensors: each thread had connections of
/// its own, and a connection takes a round trip, or three with TLS.
#[test]
fn a_connection_of_headers_is_used_for_tensors_and_for_the_next_load() {
    let model = Model::small();
    let server = model.serve(|_, request| request.right());
    let loader = loader();
    for _ in 0..3 {
        model.load(&loader, &server.url()).unwrap();
    }
    assert_eq!(connections(&server), [0; 6]);
}

#[cfg(feature = "cli")]
#[test]
fn a_connection_under_tls_moves_from_thread_to_thread_as_well() {
    use crate::common::command::{ringload, run};
    use crate::common::fault_server::Request;
    let directory = tempfile::tempdir().unwrap();
    certificates::make(directory.path());
    let model = Model::new(&[3 << 20; 4]);
    let acceptor = certificates::acceptor(directory.path());
    let right = |_: usize, request: &Request| request.right();
    let server = FaultServer::start_tls(acceptor, model.file.clone(), right);
    let mut command = ringload();
    command.args(["load", "--connections", "1", &server.url()]);
    command.env("SSL_CERT_FILE", directory.path().join("ca.pem"));
    let finished = run(&mut command);
    assert!(finished.status.success(), "{finished:?}");
    let connections = connections(&server);
    assert!(connections.len() > 2 && connections.iter().all(|&it| it == 0), "{connections:?}");
}

/// Each shard of a few kilobytes took two requests, of which the first had brought all of it.
#[test]
fn a_small_object_is_loaded_with_one_request() {
    let model = Model::new(&[10_000, 0, 20_000]);
    let server = model.serve(|_, request| request.right());
    for number in 1..3 {
        model.load(&loader(), &server.url()).unwrap();
        assert_eq!(server.seen().len(), number);
    }
}
