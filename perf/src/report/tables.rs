//! The tables as text cells, which the page and the terminal share.

use crate::records::{Role, Target};
use crate::report::data::{Client, Curve, Measured, Spread};
use crate::report::text::{self, NONE, Outcome, digits, optional};

pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

pub struct Column {
    pub name: &'static str,
    pub is_figure: bool,
}

pub struct Row {
    pub cells: Vec<String>,
    /// The client of the row.
    pub client: String,
    pub role: Role,
}

/// A column of figures that some clients may lack.
struct Figures {
    name: &'static str,
    of: fn(&Client<'_>) -> Option<String>,
    /// Whether it is omitted if no client has a figure.
    is_optional: bool,
}

const FIGURES: [Figures; 8] = [
    Figures { name: "seconds", of: |it| middle(it.seconds()), is_optional: false },
    Figures { name: "least to greatest", of: |it| it.seconds().map(range), is_optional: false },
    Figures { name: "GB/s", of: |it| middle(it.gigabytes_per_second()), is_optional: false },
    Figures {
        name: "CPU-s/GB",
        of: |it| middle(it.cpu_seconds_per_gigabyte()),
        is_optional: false,
    },
    Figures {
        name: "server CPU-s/GB",
        of: |it| middle(it.server_cpu_seconds_per_gigabyte()),
        is_optional: true,
    },
    Figures { name: "peak MiB", of: |it| middle(it.peak_mebibytes()), is_optional: true },
    Figures {
        name: "first tensor, s",
        of: |it| middle(it.first_tensor_seconds()),
        is_optional: true,
    },
    Figures {
        name: "last tensor, s",
        of: |it| middle(it.last_tensor_seconds()),
        is_optional: true,
    },
];

/// The clients of a case.
pub fn clients(case: &Measured<'_>) -> Table {
    table(&[(None, case)])
}

/// The clients at all points of a curve.
pub fn curve(curve: &Curve<'_, '_>, point: impl Fn(f64) -> String) -> Table {
    let cases: Vec<_> = curve.points.iter().map(|(x, case)| (Some(point(*x)), *case)).collect();
    table(&cases)
}

fn table(cases: &[(Option<String>, &Measured<'_>)]) -> Table {
    let is_any = |figures: &&Figures| {
        let mut clients = cases.iter().flat_map(|(_, case)| &case.clients);
        !figures.is_optional || clients.any(|client| (figures.of)(client).is_some())
    };
    let figures: Vec<&Figures> = FIGURES.iter().filter(is_any).collect();
    let mut columns = vec![Column { name: "client", is_figure: false }];
    if cases.iter().any(|(point, _)| point.is_some()) {
        columns.push(Column { name: "at", is_figure: true });
    }
    columns.push(Column { name: "runs", is_figure: true });
    columns.extend(figures.iter().map(|it| Column { name: it.name, is_figure: true }));

    let mut rows = Vec::new();
    for (point, case) in cases {
        for client in &case.clients {
            let mut cells = vec![client.name.to_owned()];
            cells.extend(point.clone());
            cells.push(client.runs.len().to_string());
            let figure = |it: &&Figures| (it.of)(client).unwrap_or_else(|| NONE.to_owned());
            cells.extend(figures.iter().map(figure));
            rows.push(Row { cells, client: client.name.to_owned(), role: client.role });
        }
    }
    Table { columns, rows }
}

/// The displayed role; empty for ringload itself.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Own => "",
        Role::Control => "control",
        Role::Peer => "peer",
        Role::Limit => "limit",
    }
}

/// Targets by their part, in the order of the first target of each part.
pub fn parts<'a>(targets: &[&'a Target]) -> Vec<(&'a str, Vec<&'a Target>)> {
    let mut parts: Vec<(&str, Vec<&Target>)> = Vec::new();
    for target in targets {
        match parts.iter_mut().find(|(part, _)| *part == target.part) {
            Some((_, targets)) => targets.push(target),
            None => parts.push((&target.part, vec![target])),
        }
    }
    parts
}

/// The cells of a target: sentence, figure with its interval, target, result.
pub fn target(target: &Target) -> [String; 4] {
    let interval = text::interval(target).filter(|_| target.figure.is_some());
    let figure = match interval {
        Some(interval) => format!("{} ({interval})", text::figure(target)),
        None => text::figure(target),
    };
    let close = if target.is_close() { ", close" } else { "" };
    let outcome = format!("{}{close}", Outcome::of(target).name());
    [target.sentence.clone(), figure, text::bound(target), outcome]
}

fn middle(spread: Option<Spread>) -> Option<String> {
    spread.map(|spread| optional(Some(spread.median)))
}

fn range(spread: Spread) -> String {
    format!("{} {NONE} {}", digits(spread.low), digits(spread.high))
}
