//! One colour for each client in the whole report.
//!
//! Colours are classes; the style sheet defines each for light and dark mode (Paul Tol's "muted"
//! scheme, which colour-blind readers can distinguish). ringload has the only strong colour, peers
//! are muted, and limits are grey. Lines also differ by their markers and dashes.

use crate::records::Role;
use crate::report::data::Report;

/// The number of colours for peers; further peers reuse them with dashes.
const PEERS: usize = 8;

/// How a client is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// The class of its colour.
    pub class: String,
    pub is_dashed: bool,
    pub marker: Marker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
}

const MARKERS: [Marker; 5] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross];

pub struct Palette<'a> {
    styles: Vec<(&'a str, Style)>,
}

impl<'a> Palette<'a> {
    pub fn of(report: &Report<'a>) -> Self {
        let mut counts = [0_usize; 4];
        let mut styles: Vec<(&str, Style)> = Vec::new();
        for (client, role) in report.clients() {
            if styles.iter().any(|(name, _)| *name == client) {
                continue;
            }
            let count = &mut counts[role as usize];
            let marker = MARKERS[styles.len() % MARKERS.len()];
            styles.push((client, style(role, *count, marker)));
            *count += 1;
        }
        Self { styles }
    }

    pub fn style(&self, client: &str) -> Style {
        let known = self.styles.iter().find(|(name, _)| *name == client);
        known.map_or_else(|| style(Role::Limit, 0, Marker::Circle), |(_, style)| style.clone())
    }
}

/// The style of the `index`th client of a role.
fn style(role: Role, index: usize, marker: Marker) -> Style {
    let (class, is_dashed) = match role {
        Role::Own => ("own".to_owned(), index > 0),
        Role::Control => ("control".to_owned(), true),
        Role::Peer => (format!("peer{}", index % PEERS + 1), index >= PEERS),
        Role::Limit => ("limit".to_owned(), true),
    };
    Style { class, is_dashed, marker }
}
