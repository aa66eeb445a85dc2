//! The parts of the name of a safetensors file or of an index.
//!
//! ```text
//! model.safetensors                        model-00001-of-00002.safetensors
//! model.fp16.safetensors                   model.fp16-00001-of-00002.safetensors
//! model.safetensors.index.json             model-00001-of-00002.fp16.safetensors
//! model.safetensors.index.fp16.json
//! ```
//!
//! `.sft` is the same as `.safetensors`, except in the name of an index, which has the long form whatever
//! its shards have. The stem of all these is `model`, and `fp16` is a variant, as diffusers names it. Only the usual
//! stems have variants, because other names may contain dots (`qwen2.5-7b.safetensors`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The usual stems of checkpoints that transformers, diffusers and peft write. The first two name
/// the checkpoint of a directory.
pub(super) const MAIN_STEMS: [&str; 2] = ["model", "diffusion_pytorch_model"];
const OTHER_STEMS: [&str; 3] = ["pytorch_model", "consolidated", "adapter_model"];

const SHARD_SUFFIXES: [&str; 2] = [".safetensors", ".sft"];

/// Whether `name`, which need not be UTF-8, is that of a safetensors file.
pub(super) fn is_shard(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let has = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix.as_bytes());
    SHARD_SUFFIXES.into_iter().any(has)
}

/// The name of a safetensors file or index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileName<'a> {
    /// The name without number, variant and suffix.
    pub(super) stem: &'a str,
    /// The variant; empty for none.
    pub(super) variant: &'a str,
    pub(super) kind: FileKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Index,
    /// A file that has no number.
    Single,
    /// Shard `number` of `count`.
    Numbered {
        number: u64,
        count: u64,
    },
}

impl<'a> FileName<'a> {
    /// The parts of `name`; `None` if it is neither a safetensors file nor an index.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        if let Some(index) = parse_index(name) {
            return Some(index);
        }
        let base = SHARD_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        let base = base.filter(|base| !base.is_empty())?;
        if let Some((rest, kind)) = numbered(base) {
            let (stem, variant) = split_variant(rest);
            return Some(Self { stem, variant, kind });
        }
        // The number may stand before the variant.
        if let Some((before, variant)) = base.rsplit_once('.')
            && let Some((stem, kind)) = numbered(before)
            && is_usual(stem)
        {
            return Some(Self { stem, variant, kind });
        }
        let (stem, variant) = split_variant(base);
        Some(Self { stem, variant, kind: FileKind::Single })
    }
}

fn parse_index(name: &str) -> Option<FileName<'_>> {
    let (base, end) = name.split_once(".safetensors.index.")?;
    let (stem, variant) = match end.strip_suffix("json")? {
        "" => split_variant(base),
        variant => (base, variant.strip_suffix('.')?),
    };
    (!stem.is_empty()).then_some(FileName { stem, variant, kind: FileKind::Index })
}

/// Splits `STEM-NUMBER-of-COUNT` into the stem and the kind.
fn numbered(base: &str) -> Option<(&str, FileKind)> {
    let (rest, count) = base.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    // A number of any length is one: no checkpoint has that many shards, so it is incomplete.
    let parse = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    Some((stem, FileKind::Numbered { number: parse(number)?, count: parse(count)? }))
}

/// Splits `STEM.VARIANT` where the stem is a usual one. A variant is not a mere number.
fn split_variant(base: &str) -> (&str, &str) {
    match base.split_once('.') {
        Some((stem, variant)) if is_usual(stem) && variant.parse::<u64>().is_err() => {
            (stem, variant)
        }
        _ => (base, ""),
    }
}

fn is_usual(stem: &str) -> bool {
    MAIN_STEMS.contains(&stem) || OTHER_STEMS.contains(&stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_parts_that_their_writers_gave_them() {
        let numbered = |number, count| FileKind::Numbered { number, count };
        for (name, stem, variant, kind) in [
            ("model.safetensors", "model", "", FileKind::Single),
            ("model.fp16.safetensors", "model", "fp16", FileKind::Single),
            ("model.2.safetensors", "model.2", "", FileKind::Single),
            ("model.sft", "model", "", FileKind::Single),
            ("model.fp16-00002-of-00002.sft", "model", "fp16", numbered(2, 2)),
            ("ae.sft", "ae", "", FileKind::Single),
            ("qwen2.5-7b.safetensors", "qwen2.5-7b", "", FileKind::Single),
            ("model-00001-of-000163.safetensors", "model", "", numbered(1, 163)),
            ("a-b-1-of-2.safetensors", "a-b", "", numbered(1, 2)),
            ("a-1-of-99999999999999999999.safetensors", "a", "", numbered(1, u64::MAX)),
            ("a--of-2.safetensors", "a--of-2", "", FileKind::Single),
            ("model.fp16-00002-of-00002.safetensors", "model", "fp16", numbered(2, 2)),
            ("model-00002-of-00002.fp16.safetensors", "model", "fp16", numbered(2, 2)),
            ("model-x-of-2.safetensors", "model-x-of-2", "", FileKind::Single),
            ("model-+1-of-2.safetensors", "model-+1-of-2", "", FileKind::Single),
            ("model.safetensors.index.json", "model", "", FileKind::Index),
            ("model.safetensors.index.fp16.json", "model", "fp16", FileKind::Index),
            ("model.fp16.safetensors.index.json", "model", "fp16", FileKind::Index),
            ("x.y.safetensors.index.json", "x.y", "", FileKind::Index),
        ] {
            assert_eq!(FileName::parse(name), Some(FileName { stem, variant, kind }), "{name}");
        }
        for name in [
            ".safetensors",
            ".sft",
            "model.sft.index.json",
            "model.bin",
            "model.safetensors.incomplete",
            ".safetensors.index.json",
            "model.safetensors.index.fp16json",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
