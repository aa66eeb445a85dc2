//! The page: one self-contained HTML file for any screen, in light and dark mode.

use crate::records::{Machine, Record, Session, Target};
use crate::report::data::Report;
use crate::report::palette::Palette;
use crate::report::scenario;
use crate::report::tables;
use crate::report::text::{self, Outcome, escaped};

const STYLE: &str = include_str!("style.css");

/// The description of the method; it must match what the harness does.
const METHOD: &str = "\
<p>The clients of a case run in turns (A B C, A B C, ...), after a turn that warms up and does not \
count, so that what slows the machine down for a while slows all of them. Figures are medians, and \
the thin lines in plots go from the least to the greatest run. Clients are compared turn by turn: the \
ratio is the median of the turns' ratios, and the interval behind it holds the true one with at least \
93 % (sign test). Two clients count as different only where that interval leaves out 1, and by more \
than two runs of the very same client are apart.</p>
<p>Files that are loaded cold were checked to have nothing in the page cache before each run. CPU \
time is that of all threads of a client, user and system; a server's is counted apart from it. What \
was loaded is compared with the reference byte for byte, so that no figure comes from wrong data. \
Limits are what the hardware or the kernel does alone, without a checkpoint being loaded. 1 GB is \
10<sup>9</sup> bytes; MiB and GiB are powers of two.</p>
";

/// The whole report.
pub fn html(records: &[Record]) -> String {
    let report = Report::of(records);
    let palette = Palette::of(&report);
    let mut main = header(&report);
    if records.is_empty() {
        main.push_str("<p>There are no records.</p>\n");
    }
    main.push_str(&summary(&report));
    for (index, scenario) in report.scenarios.iter().enumerate() {
        main.push_str(&scenario::section(scenario, &palette, &id(index)));
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>ringload: measurements</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{main}</main>\n</body>\n</html>\n"
    )
}

fn id(index: usize) -> String {
    format!("scenario-{}", index + 1)
}

fn header(report: &Report<'_>) -> String {
    let mut out = "<header>\n<h1>ringload beside its peers and the hardware</h1>\n".to_owned();
    for session in &report.sessions {
        out.push_str(&session_html(session));
    }
    out.push_str("<details open><summary>How this was measured</summary>\n");
    out.push_str(METHOD);
    out.push_str("</details>\n");
    if !report.scenarios.is_empty() {
        out.push_str("<nav aria-label=\"Contents\">\n");
        if !report.targets.is_empty() {
            out.push_str("<a href=\"#targets\">Targets</a>\n");
        }
        for (index, scenario) in report.scenarios.iter().enumerate() {
            let (id, name) = (id(index), escaped(scenario.name));
            out.push_str(&format!("<a href=\"#{id}\">{name}</a>\n"));
        }
        out.push_str("</nav>\n");
    }
    out.push_str("</header>\n");
    out
}

fn session_html(session: &Session) -> String {
    let commit = session.commit.as_deref().map(|commit| format!(", commit {commit}"));
    let version = format!("{}{}", session.version, commit.unwrap_or_default());
    let peers: Vec<String> =
        session.peers.iter().map(|(peer, version)| format!("{peer} {version}")).collect();
    let peers = if peers.is_empty() { text::NONE.to_owned() } else { peers.join(", ") };
    let facts = [
        ("ringload", version),
        ("Measured", format!("{}, {} runs of each client", session.date, session.turns)),
        ("Machine", machine(&session.machine)),
        ("Peers", peers),
    ];
    let mut out = "<dl>\n".to_owned();
    for (name, fact) in facts {
        out.push_str(&format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(&fact)));
    }
    out.push_str(&format!(
        "<dt>To repeat it</dt><dd><pre><code>{}</code></pre></dd>\n</dl>\n",
        escaped(&session.command)
    ));
    out
}

fn machine(machine: &Machine) -> String {
    let gpu = machine.gpu.as_deref().unwrap_or("no NVIDIA GPU");
    format!(
        "{} cores of {}, {} of memory, Linux {}, {}, {gpu}",
        machine.cores,
        machine.cpu,
        text::bytes(machine.memory_bytes as f64),
        machine.kernel,
        machine.file_system
    )
}

fn summary(report: &Report<'_>) -> String {
    if report.targets.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<section id=\"targets\">\n<h2>Targets</h2>\n<p class=\"count\">{}.</p>\n\
         <div class=\"scroll\"><table class=\"targets\">\n<thead><tr><th scope=\"col\">What has to be \
         reached</th><th scope=\"col\" class=\"figure\">Figure</th><th scope=\"col\" \
         class=\"figure\">Target</th><th scope=\"col\">Result</th></tr></thead>\n",
        escaped(&text::count(&report.targets))
    );
    for (part, targets) in tables::parts(&report.targets) {
        out.push_str(&format!(
            "<tbody>\n<tr class=\"part\"><th colspan=\"4\" scope=\"rowgroup\">{}</th></tr>\n",
            escaped(part)
        ));
        for target in targets {
            out.push_str(&target_html(target));
        }
        out.push_str("</tbody>\n");
    }
    out.push_str("</table></div>\n</section>\n");
    out
}

fn target_html(target: &Target) -> String {
    let (class, sign) = match Outcome::of(target) {
        Outcome::Pass => ("pass", "\u{2713} "),
        Outcome::Fail => ("fail", "\u{2717} "),
        Outcome::NotMeasured => ("none", ""),
    };
    let name = Outcome::of(target).name();
    let small = |text: &str| format!("<br><small>{}</small>", escaped(text));
    let note = target.note.as_deref().map(small).unwrap_or_default();
    let interval = text::interval(target).filter(|_| target.figure.is_some());
    let interval = interval.map(|it| small(&it)).unwrap_or_default();
    let close = match target.is_close() {
        true => " <span class=\"badge close\">close</span>",
        false => "",
    };
    format!(
        "<tr><td title=\"{}\">{}{note}</td><td class=\"figure\">{}{interval}</td>\
         <td class=\"figure\">{}</td><td><span class=\"badge {class}\">{sign}{name}</span>{close}</td></tr>\n",
        escaped(&target.id),
        escaped(&target.sentence),
        escaped(&text::figure(target)),
        escaped(&text::bound(target))
    )
}
