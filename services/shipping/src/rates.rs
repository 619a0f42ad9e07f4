//! What sending a parcel costs: a table, and one pure function over it.
//!
//! A rate is a base price and a price for every begun kilogram after the first, by service, zone and currency; a service may
//! be free from a worth of goods on. Prices are without tax.

use contract::{Currency, Money};

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Country the parcels leave from, two capital letters; what goes nowhere else is domestic.
    pub home: String,
    /// Countries nothing is sent to.
    pub not_served: Vec<String>,
    /// Tax on shipping, in hundredths of a per cent.
    pub tax_basis_points: i32,
    /// Services, the cheapest first.
    pub services: Vec<Service>,
}

/// A way to send a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Id, such as `standard`.
    pub id: String,
    /// What a shop shows.
    pub title: String,
    /// Who carries it.
    pub carrier: String,
    /// The heaviest parcel it takes; unset for any.
    pub max_grams: Option<i64>,
    /// Its prices.
    pub tariffs: Vec<Tariff>,
}

/// The price of a service in a zone and a currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// Where to.
    pub zone: Zone,
    /// Price of the first kilogram.
    pub base: Money,
    /// Price of each begun kilogram after it, in minor units.
    pub per_kilogram_minor: i64,
    /// Goods worth at least this are sent free, in minor units; unset for never.
    pub free_from_minor: Option<i64>,
    /// (least, most) working days on the way.
    pub days: (i32, i32),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Within the country.
    Domestic,
    /// Within Europe.
    Europe,
    /// Anywhere else.
    World,
}

/// What a service costs for one parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate<'a> {
    /// The service.
    pub service: &'a Service,
    /// Its price.
    pub price: Money,
    /// (least, most) working days on the way.
    pub days: (i32, i32),
}

/// The table has no prices in this currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has no shipping rates")]
pub struct UnknownCurrency;

const GRAMS: i64 = 1000;

/// What a service asks for a zone in pounds: zone, base, per kilogram, free from, days.
type Pounds = (Zone, i64, i64, Option<i64>, (i32, i32));

/// Countries of the zone Europe, sorted.
const EUROPE: [&str; 44] = [
    "AD", "AL", "AT", "BA", "BE", "BG", "CH", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FO", "FR", "GB", "GG", "GI",
    "GR", "HR", "HU", "IE", "IM", "IS", "IT", "JE", "LI", "LT", "LU", "LV", "MC", "MD", "ME", "MK", "MT", "NL", "NO",
    "PL", "PT", "RO", "SE", "SI", "SK",
];

impl Table {
    /// Rates to a country (home if empty) for a weight and a worth of goods, cheapest first; none where nothing goes.
    pub fn quote(
        &self,
        country: &str,
        grams: i64,
        currency: Currency,
        worth: Option<i64>,
    ) -> Result<Vec<Rate<'_>>, UnknownCurrency> {
        let tariffs = self.services.iter().flat_map(|service| &service.tariffs);
        if !tariffs.clone().any(|tariff| tariff.base.currency == currency) {
            return Err(UnknownCurrency);
        }
        if self.not_served.iter().any(|closed| closed == country) {
            return Ok(vec![]);
        }
        let zone = self.zone(country);
        let mut rates: Vec<_> = self
            .services
            .iter()
            .filter(|service| service.max_grams.is_none_or(|max| grams <= max))
            .filter_map(|service| {
                let fits = |tariff: &&Tariff| tariff.zone == zone && tariff.base.currency == currency;
                let tariff = service.tariffs.iter().find(fits)?;
                Some(Rate { service, price: tariff.price(grams, worth), days: tariff.days })
            })
            .collect();
        rates.sort_by_key(|rate| rate.price.minor);
        Ok(rates)
    }

    /// Who carries what is sent by a service; of the cheapest for an empty or unknown one.
    pub fn carrier(&self, service: &str) -> &str {
        let named = self.services.iter().find(|known| known.id == service);
        named.or(self.services.first()).map_or("", |service| service.carrier.as_str())
    }

    fn zone(&self, country: &str) -> Zone {
        if country.is_empty() || country == self.home {
            Zone::Domestic
        } else if EUROPE.binary_search(&country).is_ok() {
            Zone::Europe
        } else {
            Zone::World
        }
    }
}

impl Tariff {
    fn price(&self, grams: i64, worth: Option<i64>) -> Money {
        if self.free_from_minor.zip(worth).is_some_and(|(from, worth)| worth >= from) {
            return Money::zero(self.base.currency);
        }
        let further = grams.saturating_sub(1).max(0) / GRAMS;
        let minor = self.base.minor.saturating_add(self.per_kilogram_minor.saturating_mul(further));
        Money::new(self.base.currency, minor)
    }
}

impl Default for Table {
    /// A shop in Great Britain that sends standard anywhere and express up to 30 kg, in pounds, euros and dollars.
    fn default() -> Self {
        use Zone::{Domestic, Europe, World};
        let standard = [
            (Domestic, 395, 60, Some(5_000), (2, 4)),
            (Europe, 895, 180, Some(15_000), (4, 8)),
            (World, 1_495, 450, None, (7, 15)),
        ];
        let express =
            [(Domestic, 795, 120, None, (1, 1)), (Europe, 1_895, 390, None, (1, 3)), (World, 3_495, 950, None, (2, 5))];
        // Prices of their own would be better than rates of exchange; a shop sets them by configuration.
        let currencies = [(Currency::GBP, 100), (Currency::EUR, 120), (Currency::USD, 130)];
        let tariffs = |zones: [Pounds; 3]| {
            let all = currencies.iter().flat_map(|&(currency, per_cent)| {
                zones.map(|(zone, base, per_kilogram, free_from, days)| Tariff {
                    zone,
                    base: Money::new(currency, base * per_cent / 100),
                    per_kilogram_minor: per_kilogram * per_cent / 100,
                    free_from_minor: free_from.map(|from| from * per_cent / 100),
                    days,
                })
            });
            all.collect()
        };
        let service = |id: &str, title: &str, carrier: &str, max_grams, zones| Service {
            id: id.to_owned(),
            title: title.to_owned(),
            carrier: carrier.to_owned(),
            max_grams,
            tariffs: tariffs(zones),
        };
        Self {
            home: "GB".to_owned(),
            not_served: vec![],
            tax_basis_points: 2_000,
            services: vec![
                service("standard", "Standard", "Parcel Post", None, standard),
                service("express", "Express", "Swift Courier", Some(30 * GRAMS), express),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(country: &str, grams: i64, currency: Currency, worth: Option<i64>) -> Vec<(String, i64)> {
        let table = Table::default();
        let rates = table.quote(country, grams, currency, worth).unwrap();
        rates.iter().map(|rate| (rate.service.id.clone(), rate.price.minor)).collect()
    }

    fn named(rates: &[(&str, i64)]) -> Vec<(String, i64)> {
        rates.iter().map(|(id, minor)| ((*id).to_owned(), *minor)).collect()
    }

    #[test]
    fn it_costs_more_the_farther_it_goes() {
        assert_eq!(prices("", 500, Currency::GBP, None), named(&[("standard", 395), ("express", 795)]));
        assert_eq!(prices("GB", 500, Currency::GBP, None), prices("", 500, Currency::GBP, None));
        assert_eq!(prices("DE", 500, Currency::GBP, None), named(&[("standard", 895), ("express", 1_895)]));
        assert_eq!(prices("NZ", 500, Currency::GBP, None), named(&[("standard", 1_495), ("express", 3_495)]));
        assert_eq!(prices("DE", 500, Currency::EUR, None), named(&[("standard", 1_074), ("express", 2_274)]));
    }

    #[test]
    fn every_begun_kilogram_after_the_first_is_paid() {
        let standard = |grams| prices("GB", grams, Currency::GBP, None)[0].1;
        assert_eq!([0, 1, 1_000, 1_001, 2_000, 2_001].map(standard), [395, 395, 395, 455, 455, 515]);
    }

    #[test]
    fn it_never_costs_less_for_more_weight_and_never_overflows() {
        for country in ["GB", "FR", "US"] {
            let mut before = 0;
            for grams in (0..50_000).step_by(333).chain([1_000_000_000_000, i64::MAX]) {
                let price = prices(country, grams, Currency::USD, None)[0].1;
                assert!(price >= before, "{country} {grams}");
                before = price;
            }
        }
    }

    #[test]
    fn standard_is_free_from_a_worth_of_goods_on() {
        assert_eq!(prices("GB", 9_000, Currency::GBP, Some(5_000))[0], ("standard".to_owned(), 0));
        assert_ne!(prices("GB", 9_000, Currency::GBP, Some(4_999))[0].1, 0);
        assert!(prices("US", 0, Currency::GBP, Some(i64::MAX))[0].1 > 0);
    }

    #[test]
    fn a_heavy_parcel_has_no_express() {
        assert_eq!(prices("GB", 30_001, Currency::GBP, None).len(), 1);
    }

    #[test]
    fn nothing_goes_to_a_country_that_is_not_served_and_nothing_is_priced_in_yen() {
        let table = Table { not_served: vec!["AQ".to_owned()], ..Table::default() };
        assert_eq!(table.quote("AQ", 1, Currency::GBP, None), Ok(vec![]));
        assert_eq!(table.quote("JP", 1, Currency::JPY, None), Err(UnknownCurrency));
    }

    #[test]
    fn the_countries_of_europe_are_sorted_for_the_search() {
        assert!(EUROPE.is_sorted());
    }
}
