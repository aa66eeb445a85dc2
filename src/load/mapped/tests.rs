use super::*;
use crate::{ErrorKind, Loader, dlpack::Exporting};
use safetensors::tensor::TensorView;
use std::path::Path;

fn written(path: &Path, value: u8) {
    let data = vec![value; 3 << 20];
    let view = || TensorView::new(safetensors::Dtype::U8, vec![data.len()], &data).unwrap();
    let empty = TensorView::new(safetensors::Dtype::F32, vec![0, 4], &[]).unwrap();
    let tensors = [("a", view()), ("b", view()), ("empty", empty)];
    std::fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

fn mapped(path: &Path) -> MappedCheckpoint {
    MappedCheckpoint::new(Arc::new(Loader::new().open(path).unwrap())).unwrap()
}

/// Writes to a tensor as a framework does.
#[allow(unsafe_code)]
fn write_first(tensor: &Tensor, value: u8) {
    // SAFETY: nobody has a slice of the tensor.
    let export = unsafe { tensor.export_writable(Exporting::default()) }.unwrap();
    assert!(!export.is_read_only());
    // SAFETY: the tensor has more than one byte, and nobody else uses it.
    unsafe { (export.address() as *mut u8).write(value) };
}

#[test]
fn tensors_are_written_to_without_changing_the_file_or_another_mapping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.safetensors");
    written(&path, 7);
    let (one, other) = (mapped(&path), mapped(&path));
    assert_eq!(one.view("empty").unwrap().bytes(), &[] as &[u8]);
    assert_eq!(one.view("empty").unwrap().shape(), &[0, 4]);
    write_first(&one.view("a").unwrap(), 9);
    assert_eq!(one.view("a").unwrap().bytes()[..2], [9, 7]);
    assert_eq!(one.view("a").unwrap().to_vec().unwrap()[..2], [9, 7]);
    assert_eq!(other.view("a").unwrap().bytes()[..2], [7, 7]);
    assert_eq!(one.view("c").unwrap_err().kind(), ErrorKind::NotFound);
    one.check_unchanged().unwrap();
}

#[test]
fn removing_and_replacing_the_file_does_not_matter_and_writing_to_it_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("m.safetensors"), directory.path().join("n"));
    written(&path, 7);
    let mapped = mapped(&path);
    written(&other, 8);
    std::fs::rename(&other, &path).unwrap();
    mapped.check_unchanged().unwrap();
    std::fs::remove_file(&path).unwrap();
    mapped.check_unchanged().unwrap();
    mapped.prefetch(&["b".to_owned(), "a".to_owned()]).unwrap();
    assert!(mapped.view("b").unwrap().bytes().iter().all(|&byte| byte == 7));

    written(&path, 7);
    let mapped = self::mapped(&path);
    std::thread::sleep(std::time::Duration::from_millis(20)); // the clock of inodes has ticks
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5 << 20).unwrap();
    assert_eq!(mapped.check_unchanged().unwrap_err().kind(), ErrorKind::Changed);
}
