//! The man pages and shell completions, made from the arguments of the command.
//!
//! A test makes them, so that neither the command nor its build depends on what they are made with.
//! `release/command.sh` names the directory in `RINGLOAD_MANUAL_DIR` and the date of the pages in
//! `RINGLOAD_MANUAL_DATE`. Without these variables the files are made in a temporary directory and
//! only checked.

#![allow(clippy::unwrap_used)]

use crate::Cli;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// `ringload` without its hidden subcommands, which shells would complete.
fn shown() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned();
    Command::new("ringload")
        .about(all.get_about().unwrap().clone())
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .args(all.get_arguments().cloned())
        .subcommands(shown)
}

/// `command` and its subcommands at every depth.
fn with_subcommands(command: &Command) -> Vec<Command> {
    let inner = command.get_subcommands().flat_map(with_subcommands);
    [command.clone()].into_iter().chain(inner).collect()
}

/// Writes one page for each of `commands`, as `ringload-cache-ls.1`.
fn write_man_pages(commands: &[Command], directory: &Path) -> Vec<PathBuf> {
    let date = env::var("RINGLOAD_MANUAL_DATE").unwrap_or_default();
    let source = concat!("ringload ", env!("CARGO_PKG_VERSION"));
    commands
        .iter()
        .map(|command| {
            let page = Man::new(command.clone()).date(&date).source(source);
            page.generate_to(directory).unwrap()
        })
        .collect()
}

/// Writes `ringload.bash`, `_ringload` (zsh) and `ringload.fish`.
fn write_completions(directory: &Path) -> [PathBuf; 3] {
    [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| {
        clap_complete::generate_to(shell, &mut shown(), "ringload", directory).unwrap()
    })
}

#[test]
fn man_pages_and_completions_have_every_option_and_no_hidden_subcommand() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = env::var_os("RINGLOAD_MANUAL_DIR")
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let mut root = shown();
    root.build(); // names the subcommands by their parents
    let commands = with_subcommands(&root);
    let pages = write_man_pages(&commands, &directory);
    let completions = write_completions(&directory).map(|file| fs::read_to_string(file).unwrap());

    assert!(pages.contains(&directory.join("ringload-cache-ls.1")), "{pages:?}");
    for (command, page) in commands.iter().zip(&pages) {
        let text = fs::read_to_string(page).unwrap().replace("\\-", "-");
        assert!(
            text.contains(&command.get_about().unwrap().to_string()),
            "{page:?} lacks its text"
        );
        for option in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(name) = option.get_long() else { continue };
            assert!(text.contains(&format!("--{name}")), "{page:?} lacks --{name}");
            for completions in &completions {
                assert!(completions.contains(name), "--{name} of {page:?} is not completed");
            }
        }
        assert!(!text.contains("bench-reference"), "{page:?} shows a hidden subcommand");
    }
    for completions in completions {
        assert!(!completions.contains("bench-reference"), "a hidden subcommand is completed");
    }
}
