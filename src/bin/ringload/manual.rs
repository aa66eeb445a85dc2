//! The man pages and shell completions, made from the arguments of the command.
//!
//! A test makes them, so that neither the command nor its build depends on what they are made with.
//! `release/command.sh` names the directory in `RINGLOAD_MANUAL_DIR` and the date of the pages in
//! `RINGLOAD_MANUAL_DATE`. Without these variables the files are made in a temporary directory and
//! only checked.
//!
//! clap_mangen makes the pages, except for two sections: in its synopsis, options with a value look like
//! flags, and it has no exit status.

#![allow(clippy::unwrap_used)]

use crate::Cli;
use clap::{Arg, ArgAction, Command, CommandFactory};
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

/// The exit statuses of all commands, as in docs/command-line.md.
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
0
Success, also if the reader of standard output ends early, as in \\fBringload inspect\\fR | \\fBhead\\fR.
.TP
1
Failure: something could not be read, written, loaded or verified, or a variable is wrong.
.TP
2
Wrong usage: an unknown option, a missing argument or an invalid value.
";

/// The section that shows how `command` is called, with the values of options.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut words = vec![format!("\\fB{name}\\fR")];
    let is_shown = |argument: &&Arg| !argument.is_hide_set();
    let (positionals, options): (Vec<_>, Vec<_>) =
        command.get_arguments().filter(is_shown).partition(|argument| argument.is_positional());
    words.extend(options.into_iter().chain(positionals).map(synopsis_of));
    if command.has_subcommands() {
        words.push("\\fICOMMAND\\fR".to_owned());
    }
    format!(".SH SYNOPSIS\n{}\n", words.join(" ").replace('-', "\\-"))
}

/// `[-v|--verbose]...`, `[--device DEVICE]`, `LOCATION...`
fn synopsis_of(argument: &Arg) -> String {
    let bold = |name: String| format!("\\fB{name}\\fR");
    let short = argument.get_short().map(|name| bold(format!("-{name}")));
    let long = argument.get_long().map(|name| bold(format!("--{name}")));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let takes_value = argument.is_positional() || argument.get_action().takes_values();
    let values = argument.get_value_names().filter(|_| takes_value).unwrap_or_default();
    let values = values.iter().map(|value| format!("\\fI{value}\\fR"));
    // A space that is no place for a line's end.
    let names = (!names.is_empty()).then(|| names.join("|"));
    let text = names.into_iter().chain(values).collect::<Vec<_>>().join("\\ ");
    let text = if argument.is_required_set() { text } else { format!("[{text}]") };
    let repeats = matches!(argument.get_action(), ArgAction::Append | ArgAction::Count)
        || argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    format!("{text}{}", if repeats { "..." } else { "" })
}

/// The page of `command` in roff.
fn man_page(command: &Command, man: &Man) -> String {
    let mut page = Vec::new();
    man.render(&mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    let (before, rest) = page.split_once(".SH SYNOPSIS\n").unwrap();
    let (_, after) = rest.split_once(".SH ").unwrap();
    let (main, version) = after.split_once(".SH VERSION").unwrap_or((after, ""));
    let version = if version.is_empty() { String::new() } else { format!(".SH VERSION{version}") };
    format!("{before}{}.SH {main}{EXIT_STATUS}{version}", synopsis(command))
}

/// Writes one page for each of `commands`, as `ringload-cache-ls.1`.
fn write_man_pages(commands: &[Command], directory: &Path) -> Vec<PathBuf> {
    let date = env::var("RINGLOAD_MANUAL_DATE").unwrap_or_default();
    let source = concat!("ringload ", env!("CARGO_PKG_VERSION"));
    commands
        .iter()
        .map(|command| {
            let man = Man::new(command.clone()).date(&date).source(source);
            let path = directory.join(man.get_filename());
            fs::write(&path, man_page(command, &man)).unwrap();
            path
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
        let text = fs::read_to_string(page).unwrap();
        let text = text.replace("\\-", "-").replace("\\*(Aq", "'");
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

/// A past fault: in the synopsis of every page, an option with a value looked like a flag
/// (`[--memory-limit]`), and no page listed the exit statuses.
#[test]
fn the_synopsis_shows_the_values_of_options_and_every_page_lists_the_exit_statuses() {
    let mut root = shown();
    root.build();
    for command in with_subcommands(&root) {
        let page = man_page(&command, &Man::new(command.clone()));
        let plain = ["\\fB", "\\fI", "\\fR"].iter().fold(page, |text, font| text.replace(font, ""));
        let plain = plain.replace("\\-", "-").replace("\\ ", " ");
        let section = |heading: &str| {
            let (_, rest) = plain.split_once(&format!(".SH {heading}\n")).unwrap();
            rest.split_once("\n.SH ").map_or(rest, |(section, _)| section).to_owned()
        };
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let (synopsis, status) = (section("SYNOPSIS"), section("\"EXIT STATUS\""));
        for option in command.get_opts().filter(|option| !option.is_hide_set()) {
            let (Some(long), Some([value])) = (option.get_long(), option.get_value_names()) else {
                continue;
            };
            if option.get_action().takes_values() {
                assert!(synopsis.contains(&format!("[--{long} {value}]")), "{name}: {synopsis}");
            } else {
                assert!(!synopsis.contains(&format!("--{long} ")), "{name}: {synopsis}");
            }
        }
        for number in ["\n0\n", "\n1\n", "\n2\n"] {
            assert!(status.contains(number), "{name}: {status}");
        }
        match name {
            "ringload load" => {
                assert!(synopsis.contains(" [--header NAME: VALUE]... "), "{synopsis}");
                assert!(synopsis.contains(" [-v|--verbose]... "), "{synopsis}");
                assert!(synopsis.ends_with(" LOCATION..."), "{synopsis}");
            }
            "ringload doctor" => assert!(synopsis.ends_with(" [PATH]"), "{synopsis}"),
            "ringload cache" => assert!(synopsis.ends_with(" COMMAND"), "{synopsis}"),
            _ => {}
        }
    }
}
