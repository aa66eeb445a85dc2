//! `s3://` against moto, which checks every signature: successful loads and error messages.

use crate::common::command::{self, Finished, digest_lines, ringload};
use crate::common::moto::Moto;
use crate::common::{Expected, directory, write, write_index};
use ringload::{Dtype, ErrorKind, Loader, S3Credentials};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

const BUCKET: &str = "models";

/// A running moto with a checkpoint in it.
struct Store {
    moto: Moto,
    tensors: Vec<Expected>,
}

impl Store {
    /// `None` where moto is not installed.
    fn start() -> Option<Self> {
        let files = directory();
        let tensors = vec![
            Expected::new("a", Dtype::F32, &[300, 1000], 1),
            Expected::new("b", Dtype::BF16, &[77], 2),
        ];
        let (model, indexed) = (files.path().join("model"), files.path().join("indexed"));
        fs::create_dir(&model).unwrap();
        write(&model.join("x y+1.safetensors"), &tensors, None);
        write(&model.join("x.safetensors"), &tensors, None);
        fs::create_dir(&indexed).unwrap();
        let shards = ["one.safetensors", "two.safetensors"].into_iter().zip(tensors.chunks(1));
        for (name, tensors) in shards.clone() {
            write(&indexed.join(name), tensors, None);
        }
        write_index(&indexed.join("model.safetensors.index.json"), shards);
        Some(Self { moto: Moto::start(BUCKET, files.path())?, tensors })
    }

    fn endpoint(&self) -> String {
        self.moto.url()
    }

    fn key(&self, name: &str) -> &str {
        self.moto.key(name)
    }

    /// The command with the server as its endpoint, and without credentials.
    fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = ringload();
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.moto.home.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_ENDPOINT_URL", self.endpoint());
        command.args(arguments);
        command
    }

    /// The command with these keys in the environment.
    fn with_keys(&self, key: &str, secret: &str, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret);
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let command = self.with_keys(self.key("key"), self.key("secret"), arguments);
        run(command)
    }

    /// Writes `~/.aws/config` and returns the command that uses it.
    fn by_profile(&self, config: &str) -> Command {
        let directory = self.moto.home.path().join(".aws");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config"), config).unwrap();
        self.bare(&["load", &object("x.safetensors"), "--digest"])
    }

    #[track_caller]
    fn assert_loaded(&self, finished: Finished) {
        assert_eq!(finished.quiet_success(), digest_lines(&self.tensors));
    }
}

fn run(mut command: Command) -> Finished {
    command::run(&mut command)
}

fn object(name: &str) -> String {
    format!("s3://{BUCKET}/model/{name}")
}

#[track_caller]
fn assert_reports(finished: Finished, words: &[&str]) {
    let report = finished.failure();
    for word in words {
        assert!(report.contains(word), "{word:?} is not in: {report}");
    }
    for word in ["Signature=", "Credential="] {
        assert!(!report.contains(word), "{report}");
    }
}

/// The status of the response to a raw request.
fn status(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn objects_load_with_every_kind_of_credentials() {
    let Some(store) = Store::start() else { return };
    for name in ["x.safetensors", "x y+1.safetensors"] {
        store.assert_loaded(store.run(&["load", &object(name), "--digest"]));
    }
    let verified = store.run(&["load", &object("x.safetensors"), "--digest", "--verify"]);
    store.assert_loaded(verified);
    let (key, secret, role) = (store.key("key"), store.key("secret"), store.key("role"));
    let keys = format!("aws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    store.assert_loaded(run(store.by_profile(&format!("[default]\n{keys}"))));

    let mut assuming = store.by_profile(&format!(
        "[profile reader]\nrole_arn = {role}\nsource_profile = base\n[profile base]\n{keys}"
    ));
    store.assert_loaded(run({
        assuming.env("AWS_PROFILE", "reader");
        assuming
    }));

    let json = store.moto.home.path().join("keys.json");
    let text = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"{key}\", \"SecretAccessKey\": \"{secret}\"}}"
    );
    fs::write(&json, text).unwrap();
    let process = format!("[default]\ncredential_process = cat \"{}\"\n", json.display());
    store.assert_loaded(run(store.by_profile(&process)));
}

#[test]
fn objects_load_with_the_credentials_of_the_caller() {
    let Some(store) = Store::start() else { return };
    let load = |secret: &str| {
        let credentials = S3Credentials::new(store.key("key"), secret);
        let loader = Loader::new().endpoint(store.endpoint()).region("us-east-1");
        loader.s3_credentials(credentials).load(object("x.safetensors").as_str())
    };
    let loaded = load(store.key("secret")).unwrap();
    for tensor in &store.tensors {
        assert_eq!(loaded.get(&tensor.name).unwrap().bytes(), tensor.bytes);
    }
    assert_eq!(load("wrong").unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn directories_and_patterns_are_listed() {
    let Some(store) = Store::start() else { return };
    store.assert_loaded(store.run(&["load", &object("x?y*.safetensors"), "--digest"]));
    store.assert_loaded(store.run(&["load", &format!("s3://{BUCKET}/indexed/"), "--digest"]));
    let nothing = format!("s3://{BUCKET}/nothing/");
    assert_reports(store.run(&["load", &nothing]), &[&nothing]);
}

#[test]
fn errors_say_what_to_do() {
    let Some(store) = Store::start() else { return };
    let (key, secret) = (store.key("key"), store.key("secret"));
    let x = object("x.safetensors");
    let load = |key: &str, secret: &str| run(store.with_keys(key, secret, &["load", &x]));

    let wrong_secret = load(key, "not-the-secret");
    assert!(!wrong_secret.stderr.contains("not-the-secret"));
    assert_reports(wrong_secret, &[&x, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"]);
    assert_reports(load("AKIAAAAAAAAAAAAAAAAA", secret), &[&x, "InvalidAccessKeyId"]);
    assert_reports(
        load(store.key("denied_key"), store.key("denied_secret")),
        &[&x, "AccessDenied"],
    );

    let missing_key = object("none.safetensors");
    assert_reports(store.run(&["load", &missing_key]), &[&missing_key, "no such object"]);
    let missing_bucket = "s3://no-such-bucket-here/x.safetensors";
    assert_reports(store.run(&["load", missing_bucket]), &[missing_bucket, "no such bucket"]);

    let mut anonymous = store.bare(&["load", &x]);
    anonymous.env("RUNAI_STREAMER_S3_UNSIGNED", "1");
    assert_reports(run(anonymous), &[&x, "anonymous access is refused"]);
    assert_reports(
        run(store.bare(&["load", &x])),
        &[BUCKET, "no AWS credentials found", "~/.aws/config", "AWS_NO_SIGN_REQUEST=true"],
    );
    let mut no_profile = store.bare(&["load", &x]);
    no_profile.env("AWS_PROFILE", "nobody");
    assert_reports(run(no_profile), &["no profile \"nobody\""]);
}

/// The tests above assume that this server checks signatures.
#[test]
fn the_server_rejects_unsigned_requests() {
    let Some(store) = Store::start() else { return };
    let port = store.moto.server.port;
    let get = format!(
        "GET /{BUCKET}/model/x.safetensors HTTP/1.1\r\nHost: h\r\n\
                       Connection: close\r\n"
    );
    assert_eq!(status(port, &format!("{get}\r\n")), "403");
    let forged = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}\r\nx-amz-date: 20260101T000000Z\r\n",
        store.key("key"),
        "0".repeat(64)
    );
    assert_eq!(status(port, &format!("{get}{forged}\r\n")), "403");
    assert!(Path::new(store.moto.home.path()).join("moto.log").exists());
}
