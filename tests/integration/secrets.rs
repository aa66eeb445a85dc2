//! No secret is in any message, file or log.
//!
//! Past bugs: `doctor URL` printed the password and the signature of the URL, and a server that
//! repeated the request in its response got the tokens of the request into the error. Errors and
//! locations omit the secret parts of URLs now, and responses lose what the request held. These tests
//! give known secrets to every command in all the ways there are, against a server that repeats
//! everything, with the log at its most detailed, and search all that was printed and written.

use crate::common::command::{Finished, ringload, run};
use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::{Expected, directory, write};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Every secret holds this.
const SECRET: &str = "s3cret";
const PASSWORD: &str = "s3cret-password";
const SIGNATURE: &str = "s3cret-signature";
const TOKEN: &str = "s3cret-token";
const KEY: &str = "czNjcmV0LXMzY3JldC1zM2NyZXQ="; // base64 of a text with the word, as Azure wants it

/// A place for the files of a command: its home, cache, downloads and trace.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: directory() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A command without variables, with all its files here and all of its log.
    fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = ringload();
        command.env_clear().env("HOME", self.directory.path()).env("RINGLOAD_LOG", "trace");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
        command.args(arguments).envs(variables.iter().copied()).current_dir(self.directory.path());
        command
    }

    /// Fails if a secret is in what the command printed or in any of the files.
    #[track_caller]
    fn assert_clean(&self, finished: &Finished, about: &str) {
        assert_says_nothing(finished, about);
        let mut files = Vec::new();
        add_files(self.directory.path(), &mut files);
        for path in files {
            assert!(!holds_secret(path.as_bytes()), "{about}: the name {path}");
            // The bytes of an object are what the server sent.
            let is_object = path.ends_with("/partial") || path.ends_with("/data.safetensors");
            let held = !is_object && holds_secret(&fs::read(&path).unwrap());
            assert!(!held, "{about}: {path}");
        }
    }
}

/// Fails if a secret is in what the command printed.
#[track_caller]
fn assert_says_nothing(finished: &Finished, about: &str) {
    finished.assert_no_panic();
    for text in [&finished.stdout, &finished.stderr] {
        let line = text.lines().find(|line| holds_secret(line.as_bytes()));
        assert_eq!(line, None, "{about}");
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    holds(SECRET.as_bytes()) || holds(KEY.as_bytes()) || holds(b"czNjcmV0")
}

fn add_files(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => add_files(&path, files),
            false => files.push(path.to_str().unwrap().to_owned()),
        }
    }
}

/// The target of the request and all that it was authorized with, as a server may repeat it.
fn echo(request: &Request) -> String {
    let names = [
        "authorization",
        "proxy-authorization",
        "x-amz-security-token",
        "x-token",
        "cookie",
        "x-ms-date",
        "host",
    ];
    let headers = names.iter().filter_map(|name| Some(format!("{name}={}", request.header(name)?)));
    let text = headers.collect::<Vec<_>>().join(" ");
    format!("{} {text}", request.target)
}

/// A response that repeats the request in its headers and, as an error document, in its body.
fn repeating(status: u16, request: &Request) -> Reply {
    let echo = echo(request);
    let xml = echo.replace('&', "&amp;").replace('<', "&lt;");
    let body = format!(
        "<Error><Code>Odd{echo_code}</Code><Message>{xml}</Message></Error>",
        echo_code = xml.split(' ').next().unwrap_or_default()
    );
    let mut reply = Reply::new(status).body(body.as_bytes());
    for name in [
        "X-Error-Message",
        "X-Error-Code",
        "x-ms-error-code",
        "ETag",
        "Content-Range",
        "X-Repo-Commit",
    ] {
        reply = reply.with(name, echo.clone());
    }
    if status / 100 == 3 {
        return reply.with("Location", format!("ftp://user:{PASSWORD}@host{}", request.target));
    }
    reply
}

/// A location, arguments and variables. `{}` is the server.
type Given = (String, Vec<String>, Vec<(&'static str, String)>);

/// The ways in which secrets are given.
fn ways() -> Vec<Given> {
    let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let web =
        format!("http://user:{PASSWORD}@{{}}/m.safetensors?X-Amz-Signature={SIGNATURE}&t={TOKEN}");
    let header = format!("X-Token: {TOKEN}");
    let aws = |name, value: &str| (name, value.to_owned());
    vec![
        (web.clone(), own(&["--header", &header]), vec![]),
        (web.replace("/m.safetensors", "/"), own(&["--header", &header]), vec![]),
        (
            "s3://bucket/m.safetensors".to_owned(),
            own(&["--endpoint", "http://{}"]),
            vec![
                aws("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
                aws("AWS_SECRET_ACCESS_KEY", SIGNATURE),
                aws("AWS_SESSION_TOKEN", TOKEN),
            ],
        ),
        (
            "s3://bucket/directory/".to_owned(),
            own(&["--endpoint", "http://{}"]),
            vec![
                aws("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
                aws("AWS_SECRET_ACCESS_KEY", SIGNATURE),
                aws("AWS_SESSION_TOKEN", TOKEN),
            ],
        ),
        (
            "hf://owner/repo/m.safetensors".to_owned(),
            vec![],
            vec![aws("HF_ENDPOINT", "http://{}"), aws("HF_TOKEN", TOKEN)],
        ),
        (
            "az://container/m.safetensors".to_owned(),
            own(&["--endpoint", "http://{}/account"]),
            vec![
                aws("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                aws("AZURE_STORAGE_SAS_TOKEN", &format!("sv=2020&sig={SIGNATURE}")),
            ],
        ),
        (
            "az://container/directory/".to_owned(),
            own(&["--endpoint", "http://{}/account"]),
            vec![
                aws("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                aws("AZURE_STORAGE_ACCOUNT_KEY", KEY),
            ],
        ),
        (
            "http://model.example/m.safetensors".to_owned(),
            vec![],
            vec![aws("HTTP_PROXY", &format!("http://user:{PASSWORD}@{{}}"))],
        ),
    ]
}

#[test]
fn a_server_that_repeats_the_request_gets_no_secret_into_our_words() {
    for status in [200, 206, 301, 302, 400, 401, 403, 404, 409, 412, 416, 501] {
        let server = FaultServer::start(Vec::new(), move |_, request| repeating(status, request));
        let origin = server.origin();
        let host = origin.trim_start_matches("http://");
        for (location, arguments, variables) in ways() {
            let place = Place::new();
            let at = |text: &str| text.replace("{}", host);
            let (location, cache) = (at(&location), place.path("cache"));
            let arguments: Vec<_> = arguments.iter().map(|text| at(text)).collect();
            let variables: Vec<_> =
                variables.iter().map(|(name, text)| (*name, at(text))).collect();
            let variables: Vec<_> = variables.iter().map(|(name, text)| (*name, &**text)).collect();
            for verb in ["load", "inspect"] {
                let mut all = vec![verb, &location, "--cache-dir", &cache];
                all.extend(arguments.iter().map(String::as_str));
                let finished = run(&mut place.command(&all, &variables));
                place.assert_clean(&finished, &format!("{status} {verb} {location}"));
                assert!(!finished.status.success(), "{status} {location}: {finished:#?}");
            }
        }
        assert!(server.seen().len() > 5);
    }
}

#[test]
fn nothing_that_a_good_load_writes_holds_a_secret() {
    let folder = directory();
    let model = folder.path().join("m.safetensors");
    write(&model, &[Expected::of_bytes("t", 100_000, 1)], None);
    let server = FaultServer::start(fs::read(&model).unwrap(), |_, request| request.right());
    let host = server.origin().replace("http://", "");
    let url = format!("http://user:{PASSWORD}@{host}/m.safetensors?sig={SIGNATURE}&token={TOKEN}");
    let header = format!("X-Token: {TOKEN}");
    let place = Place::new();
    let (cache, to, trace) = (place.path("cache"), place.path("to"), place.path("trace.json"));
    let common = ["--cache-dir", &cache, "--header", &header];
    for own in [
        &["load", &url, "--trace", &trace][..],
        &["load", &url, "--json"],
        &["inspect", &url],
        &["inspect", &url, "--json"],
        &["fetch", &url],
        &["fetch", &url, "--to", &to, "--json"],
    ] {
        let finished = run(&mut place.command(&[own, &common].concat(), &[]));
        assert!(finished.status.success(), "{own:?}: {finished:#?}");
        place.assert_clean(&finished, own[0]);
    }
    for own in [&["cache", "ls"][..], &["cache", "verify"], &["cache", "rm", &url]] {
        let all = [own, &["--cache-dir", &cache]].concat();
        place.assert_clean(&run(&mut place.command(&all, &[])), own[1]);
    }
    assert!(fs::exists(trace).unwrap());
}

#[test]
fn an_argument_that_is_refused_is_not_repeated_with_its_secrets() {
    let place = Place::new();
    let url = format!("https://user:{PASSWORD}@127.0.0.1:9/m.safetensors?sig={SIGNATURE}");
    // As `pathlib.Path` writes it.
    let path = url.replace("://", ":/");
    let (bad, endpoint) = (url.replace("https", "ftp"), url.replace(".safetensors", ""));
    for (arguments, variables) in [
        (&["doctor", &url][..], &[][..]),
        (&["doctor", &path], &[]),
        (&["doctor", &bad], &[]),
        (&["load", &url], &[]),
        (&["load", &path], &[]),
        (&["load", &bad], &[]),
        (&["load", &url.replace("https", "file")], &[]),
        (&["load", "x", "--trace", &url], &[]),
        (&["load", &url, "--cache-dir", &path], &[]),
        (&["fetch", &url, "--to", &path], &[]),
        (&["cache", "ls", "--cache-dir", &url], &[]),
        (&["cache", "rm", &url, "--cache-dir", &path], &[]),
        (&["load", "s3://b/m.safetensors", "--endpoint", &endpoint], &[]),
        (&["load", "gs://b/m.safetensors", "--endpoint", &endpoint], &[]),
        (&["load", "az://c/m.safetensors", "--endpoint", &endpoint], &[]),
        (&["load", "hf://o/r/m.safetensors", "--endpoint", &endpoint], &[]),
        (&["load", "hf://o/r/m.safetensors"], &[("HF_ENDPOINT", &*endpoint)]),
        (&["load", "hf://o/r/m.safetensors"], &[("HF_TOKEN", "s3cret with a space")]),
        (&["load", "s3://b/m.safetensors"], &[("AWS_ENDPOINT_URL", &*endpoint)]),
        (
            &["load", "az://c/m.safetensors"],
            &[("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=s3cret")],
        ),
        (&["load", &url], &[("HTTPS_PROXY", &*url)]),
        (&["load", "x", "--header", SECRET], &[]),
    ] {
        let finished = run(&mut place.command(arguments, variables));
        // A directory may well be called `https:`.
        let is_directory = arguments.contains(&"--cache-dir");
        assert!(is_directory || !finished.status.success(), "{arguments:?}: {finished:#?}");
        assert_says_nothing(&finished, &format!("{arguments:?} {variables:?}"));
    }
}

/// `load https//user:password@host/x?sig=...`, whose colon was forgotten, was "nothing matches the
/// pattern", with password and signature, and without a word of the colon.
#[test]
fn a_url_with_a_forgotten_colon_or_slash_is_told_without_its_secrets() {
    for (typed, meant) in [
        ("https//u:s3cret@host/x?sig=s3cret", "for a URL, write https://host/x?..."),
        ("http:/u:s3cret@host/x?sig=s3cret", "for a URL, write http://host/x?..."),
        ("https:u:s3cret@host/x?sig=s3cret", "for a URL, write https://host/x?..."),
        ("s3:/bucket/x", "for a URL, write s3://bucket/x"),
    ] {
        let told = run(ringload().args(["load", typed])).failure();
        assert!(told.contains(meant) && !told.contains("s3cret"), "{typed}: {told}");
    }
}
