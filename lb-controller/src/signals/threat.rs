//! How threatened the service is, as its operators say. It is kept on disk, and ends by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use lb_policy::{ThreatLevel, UnixSeconds};
use serde::{Deserialize, Serialize};

/// The level in force.
pub struct Threat {
    file: PathBuf,
    setting: ArcSwap<Setting>,
}

/// A level, and when it was set and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// `normal`, `elevated`, `high` or `critical`.
    pub level: String,
    pub set_at: UnixSeconds,
    /// `normal` from then on.
    pub until: UnixSeconds,
}

impl Threat {
    /// Reads what was set before. A file that cannot be read would leave an attack unanswered, so it is an error.
    pub(super) fn open(state_dir: &Path) -> Result<Threat> {
        let file = state_dir.join("threat.json");
        let setting = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; delete it to go on with `normal`", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Setting::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Threat { file, setting: ArcSwap::from_pointee(setting) })
    }

    /// Sets the level for so long; it is on disk when this returns.
    pub fn set(&self, level: ThreatLevel, now: UnixSeconds, for_seconds: u64) -> Result<()> {
        let setting = Setting { level: level.name().to_owned(), set_at: now, until: now.saturating_add(for_seconds) };
        let aside = self.file.with_extension("json.new");
        std::fs::write(&aside, serde_json::to_vec(&setting)?)
            .and_then(|()| std::fs::rename(&aside, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        self.setting.store(Arc::new(setting));
        Ok(())
    }

    pub fn level(&self, now: UnixSeconds) -> ThreatLevel {
        let setting = self.setting.load();
        if now >= setting.until {
            return ThreatLevel::Normal;
        }
        ThreatLevel::from_name(&setting.level).unwrap_or_default()
    }

    /// What was set last, and holds still; `None`: nothing does.
    pub fn setting(&self, now: UnixSeconds) -> Option<Setting> {
        let setting = self.setting.load();
        (now < setting.until).then(|| Setting::clone(&setting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_holds_over_a_restart_and_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let threat = Threat::open(folder.path()).unwrap();
        assert_eq!((threat.level(1_000), threat.setting(1_000)), (ThreatLevel::Normal, None));
        threat.set(ThreatLevel::High, 1_000, 60).unwrap();
        let restarted = Threat::open(folder.path()).unwrap();
        for threat in [threat, restarted] {
            assert_eq!(threat.level(1_059), ThreatLevel::High);
            assert_eq!(threat.setting(1_059).unwrap().until, 1_060);
            assert_eq!((threat.level(1_060), threat.setting(1_060)), (ThreatLevel::Normal, None));
        }
        std::fs::write(folder.path().join("threat.json"), "{").unwrap();
        assert!(Threat::open(folder.path()).is_err());
    }
}
