//! A figure before it is drawn: everything decided but the pixels.

use super::axis::Axis;

/// What a filter looks at.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Facets {
    pub(super) run: String,
    pub(super) backend: String,
    pub(super) dtype: String,
    pub(super) direction: String,
}

impl Facets {
    /// Name and value of each that applies.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("run", &self.run),
            ("backend", &self.backend),
            ("type", &self.dtype),
            ("direction", &self.direction),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.as_str()))
    }
}

/// How a series is told apart: by colour and by marker, and types by dash and by how the marker is filled.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Style {
    pub(super) colour: usize,
    pub(super) marker: usize,
    /// The index of dash and fill.
    pub(super) dash: usize,
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// The range along x that a tenth of the samples lies below and above.
    pub(super) spread: Option<(f64, f64)>,
    /// What hovering shows.
    pub(super) tip: String,
}

pub(super) struct Series {
    pub(super) name: String,
    pub(super) style: Style,
    /// Whether points are joined.
    pub(super) joined: bool,
    pub(super) facets: Facets,
    pub(super) points: Vec<Point>,
}

/// A line to measure by, between two points.
pub(super) struct Guide {
    pub(super) from: (f64, f64),
    pub(super) to: (f64, f64),
    pub(super) label: String,
}

impl Guide {
    /// Across the plot at one x.
    pub(super) fn upright(at: f64, y: &Axis) -> Self {
        Self { from: (at, y.low), to: (at, y.high), label: String::new() }
    }

    /// Across the plot at one y.
    pub(super) fn level(at: f64, x: &Axis, label: String) -> Self {
        Self { from: (x.low, at), to: (x.high, at), label }
    }
}

pub(super) struct Figure {
    /// The name of its file, and its anchor.
    pub(super) id: String,
    /// Which section of the report it belongs to.
    pub(super) section: Section,
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) guides: Vec<Guide>,
    /// What all of the figure has in common, for the filter.
    pub(super) facets: Facets,
}

/// The sections of the report, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Bandwidth,
    Rows,
    SpeedUp,
    Growth,
    Memory,
    Error,
    Launch,
    Training,
}

impl Section {
    pub(super) const ALL: [Self; 8] = [
        Self::Bandwidth,
        Self::Rows,
        Self::SpeedUp,
        Self::Growth,
        Self::Memory,
        Self::Error,
        Self::Launch,
        Self::Training,
    ];

    pub(super) const fn anchor(self) -> &'static str {
        match self {
            Self::Bandwidth => "bandwidth",
            Self::Rows => "rows",
            Self::SpeedUp => "speed-up",
            Self::Growth => "growth",
            Self::Memory => "memory",
            Self::Error => "error",
            Self::Launch => "launch",
            Self::Training => "training",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Bandwidth => "Share of the device's own bandwidth",
            Self::Rows => "Every measurement",
            Self::SpeedUp => "Speed-up over peers and over the sequential loop",
            Self::Growth => "How time grows",
            Self::Memory => "Memory, by checkpoint policy",
            Self::Error => "Error against float64",
            Self::Launch => "Launch overhead",
            Self::Training => "Training",
        }
    }

    /// How to read it.
    pub(super) const fn note(self) -> &'static str {
        match self {
            Self::Bandwidth => {
                "1 is as fast as the device moves the same bytes when it does nothing else, measured beside each \
                 sample. Bars span the tenth to the ninetieth percentile of the pairs."
            }
            Self::Rows => {
                "Time is the median; a row marked ~ spread by more than a fifth and is not to be quoted. Share is \
                 what the paired samples say, and may differ from GB/s over the device's own by a few percent. \
                 The last columns are speed-ups: over this backend's plain walk along time, and over each peer."
            }
            Self::SpeedUp => {
                "Time of the other over ours, in one run on one machine, for the same case and type. The sequential \
                 loop is this backend's own plain walk along time. Right of 1 ours is faster."
            }
            Self::Growth => {
                "Both axes logarithmic. Dashed: time in proportion to the work, back from the longest of the first series."
            }
            Self::Memory => {
                "What forward keeps for backward and the workspace of the plan, in units of one (B, L, D) tensor of \
                 the storage type, and what training takes with it."
            }
            Self::Error => {
                "‖out − ref‖ / ‖ref‖, the worst output or gradient. Dashed: the contract of the type. Sigmoid gates \
                 forget within hundreds of steps, slow ones remember ten thousand."
            }
            Self::Launch => "Time of one launch where there is next to nothing to move.",
            Self::Training => "Loss and accuracy by step.",
        }
    }
}
