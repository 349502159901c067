//! Where an address is, by databases in the MaxMind DB format.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use maxminddb::Reader;
use serde::Deserialize;

use super::followed::Followed;
use crate::config::GeoConfig;

type Database = Reader<Vec<u8>>;

/// The databases in force; a new file takes effect within seconds, a broken one not at all.
#[derive(Default)]
pub(super) struct Geo {
    country: Option<Arc<Followed<Database>>>,
    asn: Option<Arc<Followed<Database>>>,
}

/// What the databases say of one address.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) country: Option<CountryCode>,
    pub(super) asn: Option<u32>,
    pub(super) position: Option<Position>,
}

/// Two capital letters (ISO 3166-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CountryCode([u8; 2]);

/// A point on the globe, and how far from it the client may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) latitude_degrees: f64,
    pub(super) longitude_degrees: f64,
    pub(super) radius_km: f64,
}

impl CountryCode {
    pub(super) fn parse(text: &str) -> Option<CountryCode> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(CountryCode(letters))
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("letters are ASCII")
    }
}

impl Geo {
    /// Opens what the configuration names, but for what is open in `old`.
    pub(super) fn open(config: &GeoConfig, old: &Geo) -> Result<Geo> {
        let open = |file: &Option<PathBuf>, old: &Option<Arc<Followed<Database>>>| match (file, old) {
            (None, _) => Ok(None),
            (Some(file), Some(old)) if old.file() == file => Ok(Some(old.clone())),
            (Some(file), _) => Followed::open(file, read).map(|opened| Some(Arc::new(opened))),
        };
        Ok(Geo { country: open(&config.country, &old.country)?, asn: open(&config.asn, &old.asn)? })
    }

    /// Looks for new files. Reads them: call it off the worker threads.
    pub(super) fn follow(&self) {
        self.country.iter().chain(&self.asn).for_each(|followed| followed.look(read));
    }

    pub(super) fn place_of(&self, address: IpAddr) -> Place {
        let mut place = Place::default();
        let address = address.to_canonical();
        if let Some(followed) = &self.country {
            read_record(&followed.current(), address, |record: PlaceRecord<'_>| {
                let country = record.country.or(record.registered_country);
                place.country = country.and_then(|country| country.iso_code).and_then(CountryCode::parse);
                place.position = record.location.and_then(position_of);
            });
        }
        if let Some(followed) = &self.asn {
            read_record(&followed.current(), address, |record: NetworkRecord| {
                place.asn = record.autonomous_system_number;
            });
        }
        place
    }
}

/// What is read of a record of countries or cities; there is much more in it, and most of it names in many languages.
#[derive(Deserialize)]
struct PlaceRecord<'d> {
    #[serde(borrow)]
    country: Option<CountryRecord<'d>>,
    /// Of networks that are nowhere in particular.
    #[serde(borrow)]
    registered_country: Option<CountryRecord<'d>>,
    location: Option<LocationRecord>,
}

#[derive(Deserialize)]
struct CountryRecord<'d> {
    iso_code: Option<&'d str>,
}

#[derive(Deserialize)]
struct LocationRecord {
    latitude: Option<f64>,
    longitude: Option<f64>,
    /// In kilometres.
    accuracy_radius: Option<u32>,
}

#[derive(Deserialize)]
struct NetworkRecord {
    autonomous_system_number: Option<u32>,
}

/// A record that cannot be read is none: rules then find the fact missing, and say themselves what follows.
fn read_record<'d, R: serde::Deserialize<'d>>(database: &'d Database, address: IpAddr, with: impl FnOnce(R)) {
    let record = database.lookup(address).and_then(|found| found.decode::<R>());
    if let Ok(Some(record)) = record {
        with(record);
    }
}

fn position_of(location: LocationRecord) -> Option<Position> {
    Some(Position {
        latitude_degrees: location.latitude?,
        longitude_degrees: location.longitude?,
        // A database that does not say how exact it is is taken to know the region.
        radius_km: location.accuracy_radius.map_or(200.0, f64::from),
    })
}

fn read(file: &Path) -> Result<Database> {
    Reader::open_readfile(file).with_context(|| format!("{} is no database in the MaxMind DB format", file.display()))
}

impl Position {
    /// Along the surface of the globe, between the nearest points that the two may stand for.
    pub(super) fn distance_km(&self, other: &Position) -> f64 {
        const EARTH_RADIUS_KM: f64 = 6371.0;
        let (from, to) = (self.latitude_degrees.to_radians(), other.latitude_degrees.to_radians());
        let north = (to - from) / 2.0;
        let east = (other.longitude_degrees - self.longitude_degrees).to_radians() / 2.0;
        let chord = north.sin().powi(2) + from.cos() * to.cos() * east.sin().powi(2);
        let distance = 2.0 * EARTH_RADIUS_KM * chord.sqrt().min(1.0).asin();
        (distance - self.radius_km - other.radius_km).max(0.0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::signals) const BERLIN: Position =
        Position { latitude_degrees: 52.52, longitude_degrees: 13.4, radius_km: 20.0 };
    pub(in crate::signals) const SYDNEY: Position =
        Position { latitude_degrees: -33.87, longitude_degrees: 151.21, radius_km: 20.0 };
    pub(in crate::signals) const POTSDAM: Position =
        Position { latitude_degrees: 52.39, longitude_degrees: 13.06, radius_km: 20.0 };

    #[test]
    fn distances_are_those_of_the_globe_less_what_is_not_known() {
        let rows = [
            ("Berlin to Sydney", BERLIN, SYDNEY, 16_090.0),
            ("Berlin to Potsdam, nearer than either is known", BERLIN, POTSDAM, 0.0),
            ("over the date line", at(0.0, 179.0), at(0.0, -179.0), 222.4),
            ("pole to pole", at(90.0, 0.0), at(-90.0, 77.0), 20_015.0),
        ];
        for (name, from, to, expected) in rows {
            let distance = from.distance_km(&to);
            assert!((distance - expected).abs() < expected / 100.0 + 1.0, "{name}: {distance}");
            assert!((to.distance_km(&from) - distance).abs() < 0.001, "{name}");
        }
    }

    fn at(latitude_degrees: f64, longitude_degrees: f64) -> Position {
        Position { latitude_degrees, longitude_degrees, radius_km: 0.0 }
    }

    #[test]
    fn a_database_tells_country_network_and_position() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let config = GeoConfig { country: Some(folder.join("places.mmdb")), asn: Some(folder.join("networks.mmdb")) };
        let geo = Geo::open(&config, &Geo::default()).unwrap();
        let rows = [
            ("192.0.2.7", Some("DE"), Some(64496), Some(BERLIN)),
            ("::ffff:192.0.2.7", Some("DE"), Some(64496), Some(BERLIN)),
            ("198.51.100.7", Some("AU"), None, Some(SYDNEY)),
            ("2001:db8::1", Some("DE"), None, Some(BERLIN)),
            ("203.0.113.7", None, None, None),
        ];
        for (address, country, asn, position) in rows {
            let place = geo.place_of(address.parse().unwrap());
            let expected = Place { country: country.and_then(CountryCode::parse), asn, position };
            assert_eq!(place, expected, "{address}");
        }
    }

    #[test]
    fn a_country_is_two_capital_letters() {
        for (text, expected) in [("DE", true), ("de", false), ("D", false), ("DEU", false), ("D1", false), ("", false)]
        {
            assert_eq!(CountryCode::parse(text).is_some(), expected, "{text}");
        }
    }
}
