//! `az://` against Azurite, which verifies signatures: account keys, shared access signatures,
//! connection strings, public containers, and error messages.

use crate::common::command::{digest_lines, ringload, run};
use crate::common::servers::{Server, azurite_blob, free_port, python_program};
use crate::common::{Expected, directory, sharded, write};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::SystemTime;
use tempfile::TempDir;

const ACCOUNT: &str = "testaccount";
const KEY: &[u8] = b"a key of the tests, and of nothing else";
const VERSION: &str = "2021-12-02";
/// An expiry that no test reaches.
const DATE: &str = "2099-01-01T00:00:00Z";

/// Azurite with the containers `models` (private) and `public`, and `x.safetensors` in both.
struct Azurite {
    server: Server,
    tensors: Vec<Expected>,
    _directory: TempDir,
}

impl Azurite {
    /// Starts Azurite; `None` where it is not installed.
    fn start() -> Option<Self> {
        let (node, main) = (python_program("node")?, azurite_blob()?);
        let (directory, port) = (directory(), free_port());
        let mut command = Command::new(node);
        command.arg(main).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location"]);
        command.arg(directory.path().join("data"));
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", STANDARD.encode(KEY)));
        let server = Server::start(&mut command, port, &directory.path().join("log"));
        let tensors = vec![Expected::of_bytes("a", 5 << 20, 1), Expected::of_bytes("b", 33, 2)];
        let path = directory.path().join("x.safetensors");
        write(&path, &tensors, None);
        let azurite = Self { server, tensors, _directory: directory };
        azurite.put("models?restype=container", &[], "");
        azurite.put("public?restype=container", &[], "x-ms-blob-public-access:blob\n");
        let bytes = fs::read(path).unwrap();
        for blob in
            ["models/x.safetensors", "models/deep/a%20b.safetensors", "public/x.safetensors"]
        {
            azurite.put(blob, &bytes, "x-ms-blob-type:BlockBlob\n");
        }
        Some(azurite)
    }

    /// The blob service of the account.
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.server.port)
    }

    /// Makes a container or a blob. `own` are headers in the form that is signed.
    fn put(&self, target: &str, content: &[u8], own: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let length = content.len();
        let signed_length = if length == 0 { String::new() } else { length.to_string() };
        let date = httpdate::fmt_http_date(SystemTime::now());
        // In the order of their names.
        let own = format!("{own}x-ms-date:{date}\nx-ms-version:{VERSION}");
        let resource = format!("/{ACCOUNT}/{ACCOUNT}/{path}");
        let query_signed = query
            .split_once('=')
            .map_or(String::new(), |(name, value)| format!("\n{name}:{value}"));
        let text =
            format!("PUT\n\n\n{signed_length}\n\n\n\n\n\n\n\n\n{own}\n{resource}{query_signed}");
        let authorization = format!("SharedKey {ACCOUNT}:{}", signature(&text));
        let mut stream = TcpStream::connect(("127.0.0.1", self.server.port)).unwrap();
        let headers = own.replace('\n', "\r\n");
        let head = format!(
            "PUT /{ACCOUNT}/{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Authorization: {authorization}\r\nContent-Length: {length}\r\n{headers}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(content).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// `load LOCATION --digest` with `variables` and no other variables of Azure.
    fn load(&self, location: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = ringload();
        command.args(["load", location, "--digest"]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AZURE_") {
                command.env_remove(name);
            }
        }
        command.env("AZURE_STORAGE_ENDPOINT", self.endpoint());
        command.envs(variables.iter().copied());
        command
    }

    #[track_caller]
    fn loads(&self, location: &str, variables: &[(&str, &str)]) {
        let digests = run(&mut self.load(location, variables)).quiet_success();
        assert_eq!(digests, digest_lines(&self.tensors), "{location}");
    }

    #[track_caller]
    fn fails_with(&self, location: &str, variables: &[(&str, &str)], words: &[&str]) {
        let report = run(&mut self.load(location, variables)).failure();
        for word in words.iter().chain(&[location]) {
            assert!(report.contains(word), "{word}: {report}");
        }
    }
}

/// The HMAC of `text` with the account's key.
fn signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// A shared access signature of the container `models`, for `permissions`, until `expiry`.
fn sas(permissions: &str, expiry: &str) -> String {
    let resource = format!("/blob/{ACCOUNT}/models");
    let text = format!("{permissions}\n\n{expiry}\n{resource}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n");
    let signature = signature(&text).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sp={permissions}&se={}&sv={VERSION}&sr=c&sig={signature}", expiry.replace(':', "%3A"))
}

#[test]
fn the_account_s_key_signs() {
    let Some(azurite) = Azurite::start() else { return };
    let key = STANDARD.encode(KEY);
    let right = [("AZURE_STORAGE_ACCOUNT_KEY", key.as_str())];
    azurite.loads("az://models/x.safetensors", &right);
    azurite.loads("az://models/deep/a b.safetensors", &right);
    let endpoint = azurite.endpoint();
    let string = format!("AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};");
    let mut by_string = azurite.load("az://models/x.safetensors", &[]);
    by_string.env_remove("AZURE_STORAGE_ENDPOINT").env("AZURE_STORAGE_CONNECTION_STRING", string);
    assert_eq!(run(&mut by_string).quiet_success(), digest_lines(&azurite.tensors));

    let wrong = STANDARD.encode("another key");
    let words = ["403", "AZURE_STORAGE_ACCOUNT_KEY"];
    azurite.fails_with("az://models/x.safetensors", &[("AZURE_STORAGE_KEY", &wrong)], &words);
    azurite.fails_with("az://models/none.safetensors", &right, &["404", "BlobNotFound"]);
    azurite.fails_with("az://nowhere/x.safetensors", &right, &["404", "no container nowhere"]);
}

#[test]
fn a_shared_access_signature_suffices() {
    let Some(azurite) = Azurite::start() else { return };
    let location = "az://models/x.safetensors";
    azurite.loads(location, &[("AZURE_STORAGE_SAS_TOKEN", &sas("rl", DATE))]);
    let old = sas("rl", "2020-01-01T00:00:00Z");
    for invalid in [old, sas("rl", DATE).replace("sig=", "sig=A"), sas("l", DATE)] {
        let mut command = azurite.load(location, &[("AZURE_STORAGE_SAS_TOKEN", &invalid)]);
        let report = run(&mut command).failure();
        assert!(report.contains("403") && report.contains(location), "{report}");
        assert!(!report.contains("sig="), "{report}");
    }
}

#[test]
fn public_containers_need_no_credentials() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.loads("az://public/x.safetensors", &[]);
    azurite.fails_with(
        "az://models/x.safetensors",
        &[],
        &["without credentials", "AZURE_STORAGE_SAS"],
    );
}

#[test]
fn directories_are_listed() {
    let Some(azurite) = Azurite::start() else { return };
    let tensors = [Expected::of_bytes("one", 70_001, 1), Expected::of_bytes("two", 33, 2)];
    let blob = "x-ms-blob-type:BlockBlob\n";
    let key = STANDARD.encode(KEY);
    for (directory, indexed) in [("indexed", true), ("plain", false)] {
        for (name, bytes) in sharded(&tensors, indexed) {
            azurite.put(&format!("models/{directory}/{name}"), &bytes, blob);
        }
        // Objects deeper in the directory and beside it are not part of the checkpoint.
        azurite.put(&format!("models/{directory}/deep/x.safetensors"), b"no checkpoint", blob);
        azurite.put(&format!("models/{directory}x.safetensors"), b"no checkpoint", blob);
        let location = format!("az://models/{directory}/");
        let by_signature = [("AZURE_STORAGE_SAS_TOKEN", sas("rl", DATE))];
        for (name, secret) in
            [("AZURE_STORAGE_ACCOUNT_KEY", key.clone())].iter().chain(&by_signature)
        {
            let digests = run(&mut azurite.load(&location, &[(*name, secret)])).quiet_success();
            assert_eq!(digests, digest_lines(&tensors), "{location} {name}");
        }
    }
    let nothing = "az://models/nothing/";
    azurite.fails_with(nothing, &[("AZURE_STORAGE_ACCOUNT_KEY", &key)], &["no *.safetensors file"]);
}
