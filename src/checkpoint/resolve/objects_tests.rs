//! Directories, indexes and patterns of stores and web servers. The store that lists is the local
//! cache of the Hub, with the Hub itself switched off.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::tests::file_with;
use crate::error::{ErrorKind, Result};
use crate::location::IntoLocations;
use crate::options::{CheckpointOptions, RemoteOptions};
use crate::source::Opener;
use crate::test_server::{Server, TestResponse};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// `hf://o/r` in a cache, and nothing else in the environment.
struct Repository {
    cache: TempDir,
}

impl Repository {
    /// With a safetensors file for each of `names`, which holds a tensor of that name.
    fn new(names: &[&str]) -> Self {
        let repository = Self { cache: tempfile::tempdir().unwrap() };
        fs::create_dir_all(repository.path("")).unwrap();
        let refs = repository.cache.path().join("models--o--r/refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), COMMIT).unwrap();
        names.iter().for_each(|name| repository.write(name, file_with(&[name])));
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cache.path().join("models--o--r/snapshots").join(COMMIT).join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn open(&self, locations: impl IntoLocations) -> Result<Checkpoint> {
        let cache = self.cache.path().display().to_string();
        let variables = [("HF_HUB_CACHE", cache.as_str()), ("HF_HUB_OFFLINE", "1")];
        let options = RemoteOptions::with_variables(&variables);
        Checkpoint::open_with(
            &Opener::new(options),
            &CheckpointOptions::default(),
            locations.into_locations()?,
        )
    }

    /// The names of the tensors, which are those of the files.
    fn opened(&self, locations: impl IntoLocations) -> Vec<String> {
        names(&self.open(locations).unwrap())
    }

    fn refused(&self, locations: impl IntoLocations) -> (ErrorKind, String) {
        let error = self.open(locations).unwrap_err();
        (error.kind(), error.to_string())
    }
}

fn names(checkpoint: &Checkpoint) -> Vec<String> {
    checkpoint.tensors().iter().map(|tensor| tensor.name().to_owned()).collect()
}

fn index(shards: &[&str]) -> String {
    let entries: Vec<_> = shards.iter().map(|shard| format!("{shard:?}:{shard:?}")).collect();
    format!(r#"{{"weight_map":{{{}}}}}"#, entries.join(","))
}

#[test]
fn a_directory_is_its_index_or_its_shards() {
    let repository =
        Repository::new(&["b.safetensors", "a.safetensors", ".h.safetensors", "s/c.safetensors"]);
    repository.write("config.json", "{}");
    let all = ["a.safetensors", "b.safetensors"];
    assert_eq!(repository.opened("hf://o/r"), all);
    assert_eq!(repository.opened("hf://o/r/"), all);
    assert_eq!(repository.opened("hf://o/r@main"), all);
    assert_eq!(repository.opened("hf://o/r/s"), ["s/c.safetensors"]);
    repository.write("x.safetensors.index.json", index(&["s/c.safetensors", "a.safetensors"]));
    assert_eq!(repository.opened("hf://o/r"), ["a.safetensors", "s/c.safetensors"]);
    repository.write("y.safetensors.index.json", index(&["b.safetensors"]));
    assert_eq!(repository.opened("hf://o/r"), all);
    repository.write("model.safetensors.index.json", index(&["b.safetensors"]));
    assert_eq!(repository.opened("hf://o/r"), ["b.safetensors"]);
    assert_eq!(repository.opened("hf://o/r/y.safetensors.index.json"), ["b.safetensors"]);
}

/// As for a local directory.
#[test]
fn the_short_suffix_is_that_of_a_safetensors_file() {
    let repository = Repository::new(&["ae.sft", "b.safetensors", "optimizer.sft"]);
    assert_eq!(repository.opened("hf://o/r"), ["ae.sft", "b.safetensors"]);
    assert_eq!(repository.opened("hf://o/r/ae.sft"), ["ae.sft"]);
    assert_eq!(repository.opened("hf://o/r/*.sft"), ["ae.sft", "optimizer.sft"]);
    repository.write("model.safetensors.index.json", index(&["optimizer.sft"]));
    assert_eq!(repository.opened("hf://o/r"), ["optimizer.sft"]);
    let server = web([("/m/x.sft", file_with(&["x"]))]);
    assert_eq!(names(&open(&format!("{}/m/x.sft", server.url())).unwrap()), ["x"]);
}

#[test]
fn what_is_named_twice_counts_once_and_places_mix() {
    let repository = Repository::new(&["a.safetensors", "b.safetensors"]);
    let local = tempfile::tempdir().unwrap();
    let path = local.path().join("l.safetensors").display().to_string();
    fs::write(&path, file_with(&["l"])).unwrap();
    let named = ["hf://o/r/b.safetensors", &path, "hf://o/r", &path];
    assert_eq!(repository.opened(named), ["b.safetensors", "l", "a.safetensors"]);
}

#[test]
fn patterns_match_listed_names_unless_they_are_one() {
    let repository = Repository::new(&["a1.safetensors", "a2.safetensors", ".a3.safetensors"]);
    let both = ["a1.safetensors", "a2.safetensors"];
    assert_eq!(repository.opened("hf://o/r/a*.safetensors"), both);
    assert_eq!(repository.opened("hf://o/r/?1.safetensors"), ["a1.safetensors"]);
    assert_eq!(repository.opened("hf://o/r/*[2-3].safetensors"), ["a2.safetensors"]);
    repository.write("a[1].safetensors", file_with(&["literal"]));
    assert_eq!(repository.opened("hf://o/r/a[1].safetensors"), ["literal"]);

    let (kind, sentence) = repository.refused("hf://o/r/x*.safetensors");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(sentence.contains("nothing matches the pattern \"hf://o/r/x*"), "{sentence}");
    assert_eq!(repository.refused("hf://o/r/x[.safetensors").0, ErrorKind::InvalidInput);
}

#[test]
fn what_is_missing_is_named() {
    let repository = Repository::new(&["a.safetensors"]);
    repository.write("d/config.json", "{}");
    repository.write("i/x.safetensors.index.json", index(&["gone.safetensors"]));
    repository.write("i/up.safetensors.index.json", index(&["../a.safetensors"]));
    for (location, kind, part) in [
        ("hf://o/r/d", ErrorKind::NotFound, "no *.safetensors file in the directory hf://o/r/d/;"),
        ("hf://o/r/e/", ErrorKind::NotFound, "no *.safetensors file in the directory hf://o/r/e/;"),
        ("hf://o/r/e", ErrorKind::NotFound, "HF_HUB_OFFLINE is set, and hf://o/r/e is not in"),
        ("hf://o/r/e.safetensors", ErrorKind::NotFound, "hf://o/r/e.safetensors is not in"),
        ("hf://o/other", ErrorKind::NotFound, "hf://o/other/ is not in"),
        ("hf://o/r@v2", ErrorKind::NotFound, "hf://o/r@v2/ is not in"),
        ("hf://o/r/d/config.json", ErrorKind::InvalidCheckpoint, "config.json"),
        (
            "hf://o/r/i/x.safetensors.index.json",
            ErrorKind::NotFound,
            "hf://o/r/i/x.safetensors.index.json names the shard \"gone.safetensors\"",
        ),
        (
            "hf://o/r/i/up.safetensors.index.json",
            ErrorKind::InvalidCheckpoint,
            "leaves the directory of the index with \"..\"",
        ),
    ] {
        let (got, sentence) = repository.refused(location);
        assert!(got == kind && sentence.contains(part), "{location}: {got:?} {sentence}");
    }
}

/// A web server with `files`, which lists nothing.
fn web<const N: usize>(files: [(&'static str, Vec<u8>); N]) -> Server {
    let files = HashMap::from(files);
    Server::start(move |request| match files.get(request.target()) {
        Some(file) => TestResponse::range(request, file),
        None => TestResponse::new(404, "no such file"),
    })
}

/// Opens `url` with nothing in the environment, no proxy either.
fn open(url: &str) -> Result<Checkpoint> {
    let options = RemoteOptions::with_variables(&[]);
    Checkpoint::open_with(
        &Opener::new(options),
        &CheckpointOptions::default(),
        url.into_locations()?,
    )
}

#[test]
fn directories_of_web_servers_are_tried_for_the_usual_names() {
    let shards = index(&["a b.safetensors", "./sub/c.safetensors"]).into_bytes();
    let server = web([
        ("/i/model.safetensors.index.json?k=v", shards),
        ("/i/a%20b.safetensors?k=v", file_with(&["a b.safetensors"])),
        ("/i/sub/c.safetensors?k=v", file_with(&["./sub/c.safetensors"])),
        ("/m/model.safetensors", file_with(&["m"])),
        ("/plain", file_with(&["p"])),
        ("/[x]*.safetensors", file_with(&["x"])),
    ]);
    let url = server.url();
    let opened = |path: &str| names(&open(&format!("{url}{path}")).unwrap());
    assert_eq!(opened("/i/?k=v"), ["a b.safetensors", "./sub/c.safetensors"]);
    assert_eq!(opened("/m/"), ["m"]);
    assert_eq!(opened("/plain"), ["p"]);
    assert_eq!(opened("/[x]*.safetensors"), ["x"]);
    // One request an index and a shard, and one for the index that is not there.
    assert_eq!(server.targets().len(), 3 + 2 + 1 + 1);

    let error = open(&format!("{url}/none/?s3cret")).unwrap_err();
    let sentence = format!(
        "the server of {url}/none/?... does not list it, and there is neither \
         model.safetensors.index.json nor model.safetensors; name the index or the files themselves"
    );
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, sentence));
    let error = open(&format!("{url}/none")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn long_indexes_come_in_pieces() {
    let padding = " ".repeat(200_000);
    let text = format!("{padding}{}", index(&["a.safetensors"]));
    let server = web([
        ("/x.safetensors.index.json", text.into_bytes()),
        ("/a.safetensors", file_with(&["a.safetensors"])),
    ]);
    let url = format!("{}/x.safetensors.index.json", server.url());
    assert_eq!(names(&open(&url).unwrap()), ["a.safetensors"]);
    assert_eq!(server.targets().len(), 3);
}

/// The headers of 100 shards took seven round trips, as 16 threads read them. Here no header is sent
/// before all were asked for.
#[test]
fn the_headers_of_many_shards_are_requested_at_once() {
    const SHARDS: usize = 100;
    let arrived = (std::sync::Mutex::new(0), std::sync::Condvar::new());
    let server = Server::start(move |request| {
        let (count, changed) = &arrived;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        let patience = std::time::Duration::from_secs(60);
        let missing = |count: &mut usize| *count < SHARDS;
        let (_count, waited) = changed.wait_timeout_while(count, patience, missing).unwrap();
        match waited.timed_out() {
            true => TestResponse::new(404, ""),
            false => TestResponse::range(request, &file_with(&[request.target()])),
        }
    });
    let url = |number| format!("{}/{number}.safetensors", server.url());
    let urls: Vec<_> = (0..SHARDS).map(url).collect();
    assert_eq!(Checkpoint::open(&urls).unwrap().tensors().len(), SHARDS);
}
