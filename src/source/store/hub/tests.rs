//! An emulated Hub that redirects to a CDN, and a local cache.

use crate::checkpoint::Checkpoint;
use crate::error::{ErrorKind, Result};
use crate::location::{IntoLocations, Location};
use crate::options::{CheckpointOptions, RemoteOptions, RetryLimits};
use crate::source::verify::Checksum;
use crate::source::{Cancellation, Opener};
use crate::test_files::file_at;
use crate::test_server::{Server, TestRequest, TestResponse};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_s3cret";

/// Opens things with an environment of its own.
struct User {
    home: TempDir,
    env: HashMap<String, String>,
}

impl User {
    fn new(hub: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().display().to_string();
        Self { home, env: HashMap::new() }.with("HOME", path).with("HF_ENDPOINT", hub)
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    fn options(&self) -> RemoteOptions {
        let env = self.env.clone();
        let retries = RetryLimits { attempts: 2, ..RetryLimits::default() };
        let env = Arc::new(move |name: &str| env.get(name).cloned());
        RemoteOptions { env, retries, ..RemoteOptions::default() }
    }

    fn open(&self, locations: impl IntoLocations) -> Result<Checkpoint> {
        Checkpoint::open_with(
            &Opener::new(self.options()),
            &CheckpointOptions::default(),
            locations.into_locations()?,
        )
    }

    #[track_caller]
    fn refused(&self, location: &str, kind: ErrorKind, part: &str) {
        let error = self.open(location).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "{error:?}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }

    /// Puts a file of `o/r` into the cache below `root`.
    fn cache(&self, root: impl AsRef<Path>, name: &str, content: &[u8]) {
        let repo = self.home.path().join(root).join("models--o--r");
        let path = repo.join("snapshots").join(COMMIT).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        fs::create_dir_all(repo.join("refs")).unwrap();
        fs::write(repo.join("refs/main"), COMMIT).unwrap();
    }
}

fn shard(prefix: &str) -> Vec<u8> {
    file_at(prefix, &[100], 0)
}

/// A Hub with `o/r` at one commit: `a.safetensors` on a CDN, `sub/b.safetensors` on itself.
struct Hub {
    hub: Server,
    cdn: Server,
}

fn hub() -> Hub {
    let cdn = Server::start(|request| match request.header("authorization") {
        "" => TestResponse::range(request, &shard("a")),
        _ => TestResponse::new(400, "two ways to authorize"),
    });
    let to = cdn.url();
    let hub = Server::start(move |request| answer(request, &to));
    Hub { hub, cdn }
}

fn answer(request: &TestRequest, cdn: &str) -> TestResponse {
    assert!(request.line.starts_with("GET ") && request.body.is_empty(), "{request:?}");
    if request.header("authorization") != format!("Bearer {TOKEN}") {
        return TestResponse::new(401, "").with("X-Error-Code", "RepoNotFound");
    }
    let tree = format!("/api/models/o/r/tree/{COMMIT}");
    let file = format!("/o/r/resolve/{COMMIT}");
    match request.target().split('?').next().unwrap() {
        "/api/models/o/r/revision/main" | "/api/datasets/o/r/revision/refs%2Fpr%2F1" => {
            TestResponse::new(200, format!(r#"{{"id":"o/r","sha":"{COMMIT}"}}"#))
        }
        "/api/models/o/gated/revision/main" => {
            TestResponse::new(403, "").with("X-Error-Code", "GatedRepo")
        }
        path if path == tree && !request.target().contains("cursor") => {
            let next = format!("<http://{}{tree}?cursor=x>; rel=\"next\"", request.header("host"));
            TestResponse::new(200, r#"[{"type":"directory","oid":"1","path":"sub"}]"#)
                .with("Link", next)
        }
        path if path == tree => {
            let sum = "5a".repeat(32);
            let entry =
                format!(r#"[{{"type":"file","path":"a.safetensors","lfs":{{"oid":"{sum}"}}}}]"#);
            TestResponse::new(200, entry)
        }
        path if path == format!("{tree}/sub") => {
            TestResponse::new(200, r#"[{"type":"file","oid":"2","path":"sub/b.safetensors"}]"#)
        }
        path if path == format!("{file}/a.safetensors") => {
            TestResponse::new(302, "").with("Location", format!("{cdn}/a?X-Signature=s3cret"))
        }
        path if path == format!("{file}/sub/b.safetensors") => {
            TestResponse::range(request, &shard("b"))
        }
        path if path.starts_with("/datasets/o/r/resolve/") => {
            TestResponse::range(request, &shard("d"))
        }
        path if path.contains("/revision/") => {
            TestResponse::new(404, "").with("X-Error-Code", "RevisionNotFound")
        }
        _ => TestResponse::new(404, "")
            .with("X-Error-Code", "EntryNotFound")
            .with("X-Error-Message", "Entry not found"),
    }
}

#[test]
fn everything_is_asked_for_at_one_commit_and_the_token_stays_at_the_hub() {
    let servers = hub();
    let user = User::new(&format!("{}/", servers.hub.url())).with("HF_TOKEN", TOKEN);
    let checkpoint = user.open(["hf://o/r", "hf://o/r/sub"]).unwrap();
    assert_eq!(checkpoint.shards().len(), 2);
    let targets = servers.hub.targets();
    let about = targets.iter().filter(|target| target.contains("/revision/")).count();
    assert_eq!(about, 1, "{targets:?}");
    assert!(targets.iter().all(|t| t.contains("/revision/") || t.contains(COMMIT)), "{targets:?}");
    assert_eq!(servers.cdn.targets(), ["/a?X-Signature=s3cret"]);
    assert_eq!(
        user.open("hf://datasets/o/r@refs/pr/1/d.safetensors").unwrap().tensors()[0].len_bytes(),
        100
    );
}

#[test]
fn tokens_come_from_the_environment_or_the_file() {
    let servers = hub();
    let user = || User::new(&servers.hub.url());
    let location = "hf://o/r/sub/b.safetensors";
    user().with("HUGGING_FACE_HUB_TOKEN", format!(" {TOKEN}\n")).open(location).unwrap();

    let with_file = |path: &str| {
        let user = user();
        let path = user.home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{TOKEN}\n")).unwrap();
        user
    };
    with_file(".cache/huggingface/token").open(location).unwrap();
    with_file("home/token").with("HF_HOME", "~/home").open(location).unwrap();
    with_file("t").with("HF_TOKEN_PATH", "~/t").open(location).unwrap();
    with_file("xdg/huggingface/token").with("XDG_CACHE_HOME", "~/xdg").open(location).unwrap();

    let denied = ErrorKind::PermissionDenied;
    user().refused(location, denied, "set HF_TOKEN to a token");
    user().with("HF_TOKEN", "hf_s3cret2").refused(location, denied, "account of the token");
    user().with("HF_TOKEN", TOKEN).with("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").refused(
        location,
        denied,
        "set HF_TOKEN to a token",
    );
    let invalid = ErrorKind::InvalidInput;
    user().with("HF_TOKEN", "s3cret s3cret").refused(
        location,
        invalid,
        "HF_TOKEN does not hold a token",
    );
    User::new("http://user:s3cret@host").refused(location, invalid, "HF_ENDPOINT");
    User::new("host/s3cret").refused(location, invalid, "HF_ENDPOINT");
}

#[test]
fn errors_say_what_to_do() {
    let servers = hub();
    let user = User::new(&servers.hub.url()).with("HF_TOKEN", TOKEN);
    let page = format!("accept its conditions at {}/o/gated,", servers.hub.url());
    user.refused("hf://o/gated/a.safetensors", ErrorKind::PermissionDenied, &page);
    user.refused("hf://o/r@v9", ErrorKind::NotFound, "no revision \"v9\"");
    user.refused(
        "hf://o/r/x.safetensors",
        ErrorKind::NotFound,
        "(EntryNotFound: Entry not found); the repository has no such file",
    );
    user.refused("hf://o/r/none", ErrorKind::NotFound, "no such file");
    user.refused("hf://o/r/none/", ErrorKind::NotFound, "no *.safetensors file in the directory");
}

#[test]
fn cached_files_of_the_commit_are_read_from_the_cache() {
    let servers = hub();
    let user = User::new(&servers.hub.url()).with("HF_TOKEN", TOKEN);
    user.cache(".cache/huggingface/hub", "a.safetensors", &shard("cached"));
    let checkpoint = user.open(["hf://o/r", "hf://o/r/sub"]).unwrap();
    let kinds: Vec<_> = checkpoint.shards().iter().map(|shard| shard.source().kind()).collect();
    assert_eq!(kinds, ["file", "hub"]);
    assert!(servers.cdn.targets().is_empty());

    let mut options = user.options();
    options.verify = true;
    let locations = "hf://o/r/a.safetensors".into_locations().unwrap();
    let checkpoint =
        Checkpoint::open_with(&Opener::new(options), &CheckpointOptions::default(), locations)
            .unwrap();
    assert_eq!(checkpoint.shards()[0].source().kind(), "hub");
}

#[test]
fn offline_only_the_cache_is_read() {
    let servers = hub();
    let user = User::new(&servers.hub.url()).with("HF_HUB_OFFLINE", "1").with("HF_HOME", "~/h");
    user.cache("h/hub", "a.safetensors", &shard("a"));
    assert_eq!(user.open("hf://o/r").unwrap().shards().len(), 1);
    assert_eq!(user.open(format!("hf://o/r@{COMMIT}")).unwrap().shards().len(), 1);
    user.refused("hf://o/r/sub/b.safetensors", ErrorKind::NotFound, "HF_HUB_OFFLINE is set");
    user.refused("hf://o/r/../x.safetensors", ErrorKind::NotFound, "HF_HUB_OFFLINE is set");
    user.refused("hf://o/r@v1", ErrorKind::NotFound, "HF_HUB_OFFLINE is set");
    assert!(servers.hub.targets().is_empty());
}

#[test]
fn an_unreachable_hub_leaves_the_cached_files() {
    let gone = Server::start(|_| TestResponse::new(200, "")).url();
    let user = User::new(&gone).with("HF_HUB_CACHE", "~/c");
    user.cache("c", "a.safetensors", &shard("a"));
    assert_eq!(user.open("hf://o/r").unwrap().shards().len(), 1);
    user.refused("hf://o/r@v1", ErrorKind::Unreachable, "no connection");
    user.refused("hf://o/other", ErrorKind::Unreachable, "no connection");
}

#[test]
fn throttled_requests_are_retried() {
    let throttled = AtomicBool::new(true);
    let server = Server::start(move |request| match throttled.swap(false, Ordering::SeqCst) {
        true => TestResponse::new(429, ""),
        false => answer(request, ""),
    });
    let user = User::new(&server.url()).with("HF_TOKEN", TOKEN);
    user.open("hf://o/r/sub/b.safetensors").unwrap();
}

#[test]
fn each_checkpoint_is_of_the_commit_at_the_time_that_it_is_opened() {
    const NEXT: &str = "fedcba9876543210fedcba9876543210fedcba98";
    // More than is read when a shard is opened.
    let shard = |prefix: &str| file_at(prefix, &[100_000], 0);
    let moved = Arc::new(AtomicBool::new(false));
    let is_moved = Arc::clone(&moved);
    let server = Server::start(move |request| {
        let path = request.target().split('?').next().unwrap();
        let now = if is_moved.load(Ordering::SeqCst) { NEXT } else { COMMIT };
        if path.contains("/revision/") {
            return TestResponse::new(200, format!(r#"{{"id":"o/r","sha":"{now}"}}"#));
        }
        // From here on the repository is another one, even while a checkpoint is being opened.
        is_moved.store(true, Ordering::SeqCst);
        match path.strip_prefix("/o/r/resolve/").and_then(|path| path.split_once('/')) {
            Some((COMMIT, name)) => TestResponse::range(request, &shard(&format!("old.{name}"))),
            Some((NEXT, name)) => TestResponse::range(request, &shard(&format!("new.{name}"))),
            _ => TestResponse::new(404, ""),
        }
    });
    let opener = Opener::new(User::new(&server.url()).options());
    let open = || {
        let locations = ["hf://o/r/a.safetensors", "hf://o/r/b.safetensors"].into_locations();
        Checkpoint::open_with(&opener, &CheckpointOptions::default(), locations.unwrap()).unwrap()
    };
    let names = |checkpoint: &Checkpoint, word: &str| {
        let mut tensors = checkpoint.tensors().iter();
        assert!(checkpoint.shards().len() == 2 && tensors.all(|t| t.name().starts_with(word)));
    };
    let old = open();
    names(&old, "old.");
    names(&open(), "new.");
    // What was opened before still is what it was.
    let mut whole = shard("new.b.safetensors");
    old.shards()[1].source().read_exact_at(&mut whole, 0, &Cancellation::new()).unwrap();
    assert_eq!(whole, shard("old.b.safetensors"));
    let request = server.targets().iter().filter(|target| target.contains("/revision/")).count();
    assert_eq!(request, 2, "once a checkpoint");
}

#[test]
fn checksums_are_those_of_the_listing() {
    let servers = hub();
    let user = User::new(&servers.hub.url()).with("HF_TOKEN", TOKEN);
    let opener = Opener::new(user.options());
    let checksum = |location: &str| {
        let Location::Object(uri) = Location::parse(location).unwrap() else { panic!() };
        let remote = opener.remote.object(&opener.options, &uri, false).unwrap();
        remote.prepare().unwrap();
        let (client, store) = (remote.client, remote.store);
        let (asking, key) = (Arc::clone(client), uri.key().to_owned());
        client
            .block_on(&Cancellation::new(), async move { store.checksum(&asking, &key).await })
            .unwrap()
    };
    assert_eq!(checksum("hf://o/r/a.safetensors"), Some(Checksum::Sha256([0x5a; 32])));
    assert_eq!(checksum("hf://o/r/sub/b.safetensors"), None);
}
