//! Blocks of Markdown documents whose text a program writes.
//!
//! A block is what lies between the lines `<!-- NAME -->` and `<!-- /NAME -->`. A command rewrites the
//! blocks of a document ([`rewrite`]), and a test lists those whose text differs from what the command
//! would write ([`stale`]). The rest of the document is not touched.

use anyhow::{Context, Result};
use std::path::Path;

/// The name of a block, and the lines between its markers.
pub type Block = (&'static str, String);

/// Writes `blocks` into the document `path`, which must have the markers of each.
///
/// # Errors
/// If the document cannot be read or written, or a marker is missing.
pub fn rewrite(path: &Path, blocks: &[Block]) -> Result<()> {
    let document = blocks
        .iter()
        .try_fold(read(path)?, |document, (name, text)| replaced(&document, name, text))
        .with_context(|| format!("cannot update {}", path.display()))?;
    std::fs::write(path, document)
        .with_context(|| format!("cannot write {}; check who may", path.display()))
}

/// The names of those `blocks` whose text in the document `path` is another one.
///
/// # Errors
/// As [`rewrite`].
pub fn stale(path: &Path, blocks: &[Block]) -> Result<Vec<&'static str>> {
    let document = read(path)?;
    let mut names = Vec::new();
    for (name, text) in blocks {
        if replaced(&document, name, text)? != document {
            names.push(*name);
        }
    }
    Ok(names)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; check the path", path.display()))
}

/// `document` with `text` between the markers of the block `name`.
fn replaced(document: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = document.split_once(&begin).with_context(|| absent(&begin))?;
    let (_, after) = rest.split_once(&end).with_context(|| absent(&end))?;
    Ok(format!("{before}{begin}{text}{end}{after}"))
}

fn absent(marker: &str) -> String {
    format!("the document has no line {}; add the two markers of the block", marker.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_markers_is_replaced() -> Result<()> {
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let wanted = "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n";
        assert_eq!(replaced(document, "x", "new\n")?, wanted);
        assert!(replaced(document, "y", "new\n").is_err());
        assert!(replaced("<!-- x -->\n", "x", "new\n").is_err());
        Ok(())
    }

    #[test]
    fn a_block_with_another_text_is_stale_until_it_is_rewritten() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, "<!-- x -->\n1\n<!-- /x -->\n<!-- y -->\n2\n<!-- /y -->\n")?;
        let blocks = [("x", "1\n".to_owned()), ("y", "3\n".to_owned())];
        assert_eq!(stale(file.path(), &blocks)?, ["y"]);
        rewrite(file.path(), &blocks)?;
        assert!(stale(file.path(), &blocks)?.is_empty());
        Ok(())
    }
}
