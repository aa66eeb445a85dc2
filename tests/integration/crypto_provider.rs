//! The default provider of cryptography of rustls belongs to the program that embeds the library.
//!
//! A server that used rustls with `ring` panicked once ringload was built with it, as rustls then had
//! two providers to choose from. docs/serving.md has the line with which such a server chooses one.
//! That is enough only if ringload neither sets the default, which can be set once, nor uses it.

use crate::common::certificates;
use crate::common::child::passes_in_a_child;
use crate::common::fault_server::{FaultServer, Request};
use crate::common::model::Model;
use ringload::Loader;
use rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Loads from two servers: one whose records ringload opens itself, and one whose records rustls does.
fn load() {
    let directory = tempfile::tempdir().unwrap();
    certificates::make(directory.path());
    // SAFETY: the child runs this test alone, and has no other thread yet that reads variables.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("SSL_CERT_FILE", directory.path().join("ca.pem"));
    }
    let mut chacha = aws_lc_rs::default_provider();
    chacha.cipher_suites.retain(|suite| suite.suite() == TLS13_CHACHA20_POLY1305_SHA256);
    for provider in [aws_lc_rs::default_provider(), chacha] {
        let acceptor = certificates::acceptor_by(directory.path(), provider);
        let model = Model::new(&[3 << 20; 2]);
        let right = |_: usize, request: &Request| request.right();
        let server = FaultServer::start_tls(acceptor, model.file.clone(), right);
        model.load(&Loader::new(), &server.url()).unwrap();
    }
}

#[test]
fn a_load_does_not_set_the_default() {
    if !passes_in_a_child("crypto_provider::a_load_does_not_set_the_default", &[]) {
        return;
    }
    load();
    assert!(CryptoProvider::get_default().is_none());
    aws_lc_rs::default_provider().install_default().unwrap();
}

#[test]
fn a_load_neither_uses_nor_replaces_the_default_of_the_program() {
    let name = "crypto_provider::a_load_neither_uses_nor_replaces_the_default_of_the_program";
    if !passes_in_a_child(name, &[]) {
        return;
    }
    // Nobody can connect with this one.
    let useless = CryptoProvider {
        cipher_suites: Vec::new(),
        kx_groups: Vec::new(),
        ..aws_lc_rs::default_provider()
    };
    useless.install_default().unwrap();
    load();
    assert!(CryptoProvider::get_default().unwrap().cipher_suites.is_empty());
}
