//! Settings of which one may not be more than the other, or not without the other.

use super::Config;
use super::effective::Origin;
use super::error::ConfigError;
use super::settings::SETTINGS;
use super::value::{Kind, Place};

/// The smaller and the larger of each pair.
const ORDERS: [(&str, &str); 3] =
    [("minInstances", "maxInstances"), ("maxSourceBytes", "maxFrameBytes"), ("maxResultBytes", "maxFrameBytes")];

/// The pairs that are not as they have to be, and an address that is not allowed. `origins` stand beside `SETTINGS`, entry for entry.
pub(super) fn faults(config: &Config, origins: &[Origin]) -> Vec<ConfigError> {
    let remote = config.http_listen.as_ref().filter(|endpoint| !endpoint.is_local() && !config.http_allow_remote);
    let remote = remote.and_then(|endpoint| {
        let index = SETTINGS.iter().position(|setting| setting.key == "httpListen")?;
        let origin = Box::new(origins.get(index)?.clone());
        Some(ConfigError::Remote { endpoint: endpoint.to_string(), origin })
    });
    let mut config = config.clone();
    let mut number = |key: &str| {
        let (index, setting) = SETTINGS.iter().enumerate().find(|(_, setting)| setting.key == key)?;
        let origin = origins.get(index)?.clone();
        match (setting.place)(&mut config) {
            Place::Number(value) => Some((*value, setting.kind, origin)),
            Place::Switch(_)
            | Place::Path(_)
            | Place::Uids(_)
            | Place::Endpoint(_)
            | Place::Level(_)
            | Place::Isolation(_) => None,
        }
    };
    let mut faults = Vec::from_iter(remote);
    for (small_key, large_key) in ORDERS {
        let (Some(small), Some(large)) = (number(small_key), number(large_key)) else { continue };
        if small.0 > large.0 {
            faults.push(fault((small_key, small), (large_key, large)));
        }
    }
    faults
}

type Number = (&'static str, (u64, Kind, Origin));

fn fault((small_key, small): Number, (large_key, large): Number) -> ConfigError {
    ConfigError::Order {
        small_key,
        small: small.1.amount(small.0),
        small_origin: Box::new(small.2),
        large_key,
        large: large.1.amount(large.0),
        large_origin: Box::new(large.2),
    }
}
