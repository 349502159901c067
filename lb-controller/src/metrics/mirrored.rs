//! Copies of requests for pools that mirror others.

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// Its backend answered.
    Sent,
    /// No backend took it, or none answered in time.
    Failed,
    /// As many copies as there may be were on their way.
    NoRoom,
    /// Its body was too large, or broke off.
    LeftOut,
}

impl Mirrored {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mirrored::Sent => "sent",
            Mirrored::Failed => "failed",
            Mirrored::NoRoom => "no_room",
            Mirrored::LeftOut => "left_out",
        }
    }
}
