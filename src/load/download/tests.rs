//! Downloads of local files and of objects that cannot be cached; `tests/integration/cache_command.rs` has the
//! others.

use super::*;
use crate::error::ErrorKind;
use crate::test_server::{Server, TestResponse};
use std::fs;
use std::os::unix::fs::symlink;

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

#[test]
fn files_are_copied_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("from")).unwrap();
    let mut files = Vec::new();
    let lens = [(PIECE_BYTES * 9 + 5) as usize, 0, 1, PIECE_BYTES as usize];
    for (index, len) in lens.into_iter().chain([7; 20]).enumerate() {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + n / 251 + index) as u8).collect();
        let name = format!("from/{index}");
        fs::write(at(&name), bytes).unwrap();
        files.push((Location::from(at(&name)), PathBuf::from(format!("sub{}/{index}", index % 2))));
    }
    let to = at("to");
    fs::create_dir_all(to.join("sub0")).unwrap();
    fs::write(to.join(&files[2].1), "to be replaced").unwrap();
    let downloaded = Loader::new().download(&files, &to).unwrap().finish().unwrap();
    assert_eq!(downloaded.files.len(), files.len());
    for (from, name) in &files {
        let Location::File(from) = from else { panic!("{from}") };
        assert!(fs::read(from).unwrap() == fs::read(to.join(name)).unwrap(), "{}", name.display());
    }
    assert_eq!(count(&to.join("sub0")) + count(&to.join("sub1")), files.len());
    assert_eq!(count(&to), 2, "something is left over");

    let missing = [(files[3].0.clone(), "3".into()), (Location::from(at("from/none")), "4".into())];
    let error = Loader::new().download(&missing, &at("new")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(count(&at("new")), 0);
}

/// `fetch --to` took only some options of the loader, so that `--variant` got another variant's file.
#[test]
fn a_checkpoint_is_chosen_by_the_options_of_the_loader() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("from");
    fs::create_dir(&from).unwrap();
    let header = b"\x02\0\0\0\0\0\0\0{}";
    for name in ["model.safetensors", "model.fp16.safetensors", "other.safetensors"] {
        fs::write(from.join(name), header).unwrap();
    }
    let fetched = |loader: Loader, to: &str| {
        let to = directory.path().join(to);
        let files = loader.download_checkpoint(&from, &to).unwrap().finish().unwrap().files;
        files.iter().map(|file| file.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(fetched(Loader::new(), "plain"), ["model.safetensors"]);
    let of_variant = fetched(Loader::new().variant("fp16"), "variant");
    assert_eq!(of_variant, ["model.fp16.safetensors"]);
    assert_eq!(fetched(Loader::new().all_files(true), "all").len(), 3);
}

#[test]
fn names_that_collide_or_lead_out_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (to, file) = (directory.path().join("to"), directory.path().join("file"));
    fs::create_dir(&to).unwrap();
    fs::write(&file, "x").unwrap();
    symlink(directory.path(), to.join("link")).unwrap();
    for (names, part) in [
        (["a", "../b"], "outside"),
        (["a", "/b"], "outside"),
        (["a", "b/../../c"], "outside"),
        (["a", "link/b"], "outside"),
        (["a", "./"], "outside"),
        (["a", ".ringload-download/b"], "outside"),
        (["a", "./a"], "cannot hold both"),
        (["a/b", "a"], "cannot hold both"),
    ] {
        let files = names.map(|name| (Location::from(file.as_path()), PathBuf::from(name)));
        let error = Loader::new().download(&files, &to).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{names:?}");
        assert!(error.to_string().contains(part), "{names:?}: {error}");
    }
    assert_eq!(count(&to), 1);
}

/// Without ETag and Last-Modified the cache cannot know an object; no bytes of it may be resumed.
#[test]
fn objects_that_cannot_be_cached_are_downloaded_all_the_same() {
    let bytes: Vec<u8> =
        (0..PIECE_BYTES as usize + 77_777).map(|n| (n * 7 + n / 253) as u8).collect();
    let served = bytes.clone();
    let server =
        Server::start(move |request| TestResponse::range(request, &served).without("ETag"));
    let location = Location::parse(&format!("{}/x", server.url())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = [(location.clone(), "a".into()), (location, "b".into())];
    let refused = Loader::new().download(&files, directory.path()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("the option unpinned"), "{refused}");
    let loader = Loader::new().unpinned(true);
    let downloaded = loader.download(&files, directory.path()).unwrap().finish().unwrap();
    assert_eq!(downloaded.bytes, 2 * bytes.len() as u64);
    for file in &downloaded.files {
        assert!(fs::read(file).unwrap() == bytes, "{}", file.display());
    }
    assert_eq!(count(directory.path()), 2, "something is left over");
}
