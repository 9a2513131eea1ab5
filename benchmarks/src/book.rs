//! What was measured, and what it is to be.

use std::fmt;

use serde::Serialize;

/// All figures of a run, in the order in which they were taken.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Book {
    pub(crate) figures: Vec<Figure>,
}

impl Book {
    /// Writes down figures of ours and a peer's.
    pub(crate) fn beside(
        &mut self,
        row: u8,
        case: &str,
        unit: &'static str,
        (ours, beside): (Vec<f64>, Vec<f64>),
        peer: &'static str,
        aim: Aim,
    ) {
        let case = case.to_owned();
        self.write(Figure { row, case, unit, ours, peer, beside, aim });
    }

    /// Writes down figures that have nothing beside them.
    pub(crate) fn alone(
        &mut self,
        row: u8,
        case: &str,
        unit: &'static str,
        ours: Vec<f64>,
        aim: Aim,
    ) {
        self.beside(row, case, unit, (ours, Vec::new()), "", aim);
    }

    fn write(&mut self, figure: Figure) {
        println!("{figure}");
        self.figures.push(figure);
    }
}

/// One figure of ours, beside that of a peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The row of the table.
    pub(crate) row: u8,
    /// What of it.
    pub(crate) case: String,
    /// In what it is told.
    pub(crate) unit: &'static str,
    /// Each round's.
    pub(crate) ours: Vec<f64>,
    /// Whose the other is.
    pub(crate) peer: &'static str,
    /// Each round's; empty when there is nothing beside.
    pub(crate) beside: Vec<f64>,
    /// What it is to be.
    pub(crate) aim: Aim,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    /// It is told, and not judged.
    Told,
    /// Ours is at least so many times the peer's.
    TimesAtLeast(f64),
    /// Ours is at most so many times the peer's.
    TimesAtMost(f64),
    /// Ours is at least so much.
    AtLeast(f64),
    /// Ours is at most so much.
    AtMost(f64),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>2}  {}, {}: {}", self.row, self.case, self.unit, tell(&self.ours))?;
        if !self.beside.is_empty() {
            write!(f, "; {} {}", self.peer, tell(&self.beside))?;
        }
        if let Some(ratio) = self.ratio() {
            write!(f, "; ratio {ratio:.2}")?;
        }
        match self.is_reached() {
            Some(true) => write!(f, " ({}: reached)", self.aim),
            Some(false) => write!(f, " ({}: NOT REACHED)", self.aim),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Told => write!(f, "–"),
            Aim::TimesAtLeast(times) => write!(f, "≥ {times}x"),
            Aim::TimesAtMost(times) => write!(f, "≤ {times}x"),
            Aim::AtLeast(least) => write!(f, "≥ {}", short(*least)),
            Aim::AtMost(most) => write!(f, "≤ {}", short(*most)),
        }
    }
}

/// A median, and between which figures it lies.
pub(crate) fn tell(figures: &[f64]) -> String {
    match (median(figures), spread(figures)) {
        (Some(median), Some((lowest, highest))) if figures.len() > 1 => {
            format!("{} ({}–{})", short(median), short(lowest), short(highest))
        }
        (Some(median), _) => short(median),
        (None, _) => "–".to_owned(),
    }
}

/// Three digits, or all before the point.
fn short(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middling if middling >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

impl Figure {
    /// The median of ours over the median of the peer's, unless that is nothing.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let beside = median(&self.beside).filter(|beside| *beside != 0.0)?;
        Some(median(&self.ours)? / beside)
    }

    /// Whether it is what it is to be, if it is to be anything.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let (ours, ratio) = (median(&self.ours), self.ratio());
        match self.aim {
            Aim::Told => None,
            Aim::TimesAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Aim::TimesAtMost(most) => ratio.map(|ratio| ratio <= most),
            Aim::AtLeast(least) => ours.map(|ours| ours >= least),
            Aim::AtMost(most) => ours.map(|ours| ours <= most),
        }
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even.is_multiple_of(2) => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

/// The lowest and the highest.
pub(crate) fn spread(figures: &[f64]) -> Option<(f64, f64)> {
    let lowest = figures.iter().copied().min_by(f64::total_cmp)?;
    let highest = figures.iter().copied().max_by(f64::total_cmp)?;
    Some((lowest, highest))
}
