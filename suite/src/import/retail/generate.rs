//! A made-up retail file with the dirt of a real one, for clones that do not have the real one.
//!
//! Numbers, codes and words are ours and the same for the same arguments. From 40 invoices on, every kind of dirt is in it:
//! cancellations that match a sale and ones that do not, adjustments below zero, write-offs without a price, free
//! lines, codes that are no goods, prices with three decimals, one code twice at one price and at two, codes that differ only
//! in case, missing descriptions and customers, quotes, commas and letters beyond ASCII, an invoice that goes on
//! in the next minute, two that are mixed, and one of 1,114 lines.

use jiff::ToSpan;
use jiff::civil::{DateTime, date};

use crate::sample::Chance;

const LONGEST: usize = 1_114;

const GOODS: [(&str, &str); 24] = [
    ("10101", "TIN OF TWELVE CRAYONS"),
    ("10102A", "PAPER LANTERN, SMALL"),
    ("10102a", "PAPER LANTERN, SMALL"),
    ("10102B", "PAPER LANTERN, LARGE"),
    ("10117", "BOX OF \"OLD TOWN\" MATCHES"),
    ("10203", "DOORSTOP IN THE SHAPE OF A HEN"),
    ("10230", "CAFÉ AU LAIT BOWL"),
    ("10311", "JAM LABELS, 24, ROUND"),
    ("10342W", "WOOLLEN TEA COSY"),
    ("10401", "MONEY BOX, LETTER BOX RED"),
    ("10455", "KITCHEN SCALES 5\" DIAL"),
    ("10518", "ENAMEL PIE DISH"),
    ("10577", "GARDEN KNEELER"),
    ("10602", "FOLDING RULER 2 METRES"),
    ("10661L", "LUNCH BOX, FOXES"),
    ("10661M", "LUNCH BOX, OWLS"),
    ("10709", "CRÈME BRÛLÉE DISH"),
    ("10733", "HOT WATER BOTTLE, KNITTED"),
    ("10780", "NAUGHTS & CROSSES, WOOD"),
    ("10800P", "PINK PAPER CHAIN"),
    ("10802", "WRAPPING PAPER, SWALLOWS"),
    ("10855", "JUMBO BAG, DOTS"),
    ("10901", "SET OF 3 CAKE TINS"),
    ("10950", "T-LIGHT HOLDER, PRESSED GLASS"),
];

const COUNTRIES: [&str; 5] = ["United Kingdom", "Germany", "France", "EIRE", "Norway"];

/// Writes a file of about `invoices` invoices, with its header.
pub fn generate(seed: u64, invoices: usize) -> String {
    let mut shop = Shop {
        chance: Chance::new(seed),
        out: String::from("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"),
        time: date(2010, 12, 1).at(8, 26, 0, 0),
        number: 500_001,
        sold: Vec::new(),
    };
    for index in 0..invoices {
        shop.day(index);
        shop.number += 1;
        let minutes = 1 + shop.chance.below(25);
        shop.time = shop.time.saturating_add(minutes.minutes());
    }
    shop.out
}

struct Shop {
    chance: Chance,
    out: String,
    time: DateTime,
    number: u32,
    /// What could be cancelled.
    sold: Vec<Sold>,
}

struct Sold {
    customer: String,
    country: &'static str,
    code: &'static str,
    description: &'static str,
    quantity: i64,
    pence: i64,
}

impl Shop {
    /// One invoice: the first of every forty are of each kind in turn, the rest are as it comes.
    fn day(&mut self, index: usize) {
        match index {
            3 => self.sale(LONGEST),
            7 => self.mixed(),
            11 => self.three_decimals(),
            15 => self.adjustments(),
            19 => self.one_code_at_two_prices(),
            23 => self.fees(),
            27 => self.cancellation(false),
            31 => self.write_off(),
            35 => self.free(),
            39 => self.hoarder(),
            _ => match self.chance.below(100) {
                0..12 => self.cancellation(true),
                12..14 => self.cancellation(false),
                14..19 => self.write_off(),
                19..22 => self.free(),
                22..25 => self.one_code_at_two_prices(),
                25..30 => self.fees(),
                _ => {
                    let lines = 1 + self.chance.below(30);
                    self.sale(usize::try_from(lines).unwrap_or(1));
                }
            },
        }
    }

    fn sale(&mut self, lines: usize) {
        let number = self.number.to_string();
        let (customer, country) = self.buyer();
        for line in 0..lines {
            // A long invoice takes its clerk into the next minute.
            if lines > 20 && line == lines / 2 {
                self.time = self.time.saturating_add(1.minute());
            }
            let (code, description) = self.goods();
            let quantity = 1 + self.chance.below(24);
            let pence = price_of(code);
            self.line(&number, code, description, quantity, pence, (&customer, country));
            self.sold.push(Sold { customer: customer.clone(), country, code, description, quantity, pence });
        }
    }

    fn cancellation(&mut self, matched: bool) {
        let number = format!("C{}", self.number);
        let count = i64::try_from(self.sold.len()).unwrap_or(0);
        let at = usize::try_from(self.chance.below(count)).unwrap_or(0);
        if matched && at < self.sold.len() {
            let sold = self.sold.swap_remove(at);
            let back = 1 + self.chance.below(sold.quantity);
            self.line(&number, sold.code, sold.description, -back, sold.pence, (&sold.customer, sold.country));
        } else {
            // Of somebody who bought before the file begins.
            self.line(&number, "10999X", "DISCONTINUED CLOCK", -2, 1_295, ("19999", COUNTRIES[0]));
            self.line(&number, "D", "Discount", -1, 450, ("19999", COUNTRIES[0]));
        }
    }

    /// Two invoices of one minute, the lines of one inside the other.
    fn mixed(&mut self) {
        let (outer, inner) = (self.number.to_string(), format!("C{}", self.number + 1));
        self.number += 1;
        let (customer, country) = self.buyer();
        for line in 0..6 {
            if line == 2 {
                self.line(&inner, "10518", "ENAMEL PIE DISH", -1, 595, ("18888", COUNTRIES[0]));
            }
            let (code, description) = self.goods();
            self.line(&outer, code, description, 1 + line, price_of(code), (&customer, country));
        }
    }

    fn three_decimals(&mut self) {
        let number = self.number.to_string();
        let (customer, country) = self.buyer();
        let (code, description) = self.goods();
        self.line(&number, code, description, 3, price_of(code), (&customer, country));
        self.row(&number, "PADS", "PADS FOR ALL CUSHIONS", "1", "0.001", (&customer, country));
    }

    fn adjustments(&mut self) {
        for (letter, price) in [("A", "7211.35"), ("A", "-7211.35"), ("A", "-7211.35")] {
            let number = format!("{letter}{}", self.number);
            self.row(&number, "B", "Adjust bad debt", "1", price, ("", COUNTRIES[0]));
            self.number += 1;
        }
    }

    fn one_code_at_two_prices(&mut self) {
        let number = self.number.to_string();
        let (customer, country) = self.buyer();
        let (code, description) = self.goods();
        let pence = price_of(code);
        for (quantity, pence) in [(12, pence), (1, pence + 40), (2, pence), (12, pence)] {
            self.line(&number, code, description, quantity, pence, (&customer, country));
        }
    }

    fn fees(&mut self) {
        let number = self.number.to_string();
        let (customer, country) = self.buyer();
        let buyer = (customer.as_str(), country);
        let (code, description) = self.goods();
        self.line(&number, code, description, 5, price_of(code), buyer);
        self.line(&number, "POST", "POSTAGE", 1, 1_800, buyer);
        self.line(&number, "M", "Manual", 1, 212, buyer);
        self.line(&number, "m", "Manual", 1, 212, buyer);
        self.line(&number, "C2", "CARRIAGE", 1, 5_000, buyer);
        self.line(&number, "DOT", "DOTCOM POSTAGE", 1, 27_441, buyer);
        self.line(&number, "BANK CHARGES", "Bank Charges", 1, 1_500, buyer);
        self.line(&number, "gift_0001_40", "Gift voucher £40.00, in an envelope", 1, 3_404, buyer);
    }

    fn write_off(&mut self) {
        let number = self.number.to_string();
        let (code, _) = self.goods();
        let words = ["damaged", "", "?", "thrown away, \"wet\"", "check"];
        let word = usize::try_from(self.chance.below(5)).unwrap_or(0);
        let pieces = 1 + self.chance.below(90);
        self.line(&number, code, words[word], -pieces, 0, ("", COUNTRIES[0]));
    }

    fn free(&mut self) {
        let number = self.number.to_string();
        let (customer, country) = self.buyer();
        let buyer = (customer.as_str(), country);
        let (code, description) = self.goods();
        self.line(&number, code, description, 24, price_of(code), buyer);
        let (code, _) = self.goods();
        self.line(&number, code, "", 1, 0, buyer);
    }

    /// Buys more than there is, and gives it back twelve minutes later.
    fn hoarder(&mut self) {
        let buyer = ("16446", COUNTRIES[0]);
        let (number, pieces) = (self.number.to_string(), 80_995);
        self.line(&number, "10802", "WRAPPING PAPER, SWALLOWS", pieces, 208, buyer);
        self.time = self.time.saturating_add(12.minutes());
        self.number += 1;
        let number = format!("C{}", self.number);
        self.line(&number, "10802", "WRAPPING PAPER, SWALLOWS", -pieces, 208, buyer);
    }

    fn buyer(&mut self) -> (String, &'static str) {
        let guest = self.chance.below(4) == 0;
        let customer = if guest { String::new() } else { (12_346 + self.chance.below(400)).to_string() };
        // Four of five at home.
        let country = usize::try_from(self.chance.below(20) - 15).unwrap_or(0);
        (customer, COUNTRIES[country])
    }

    fn goods(&mut self) -> (&'static str, &'static str) {
        let at = self.chance.below(GOODS.len() as i64);
        GOODS[usize::try_from(at).unwrap_or(0)]
    }

    fn line(&mut self, number: &str, code: &str, description: &str, quantity: i64, pence: i64, buyer: (&str, &str)) {
        // As the real file writes them: 2.55, 2.5, 2.0.
        let price = if pence % 10 == 0 {
            format!("{}.{}", pence / 100, pence % 100 / 10)
        } else {
            format!("{}.{:02}", pence / 100, pence % 100)
        };
        self.row(number, code, description, &quantity.to_string(), &price, buyer);
    }

    fn row(
        &mut self,
        number: &str,
        code: &str,
        description: &str,
        quantity: &str,
        price: &str,
        (customer, country): (&str, &str),
    ) {
        let description = if description.contains(['"', ',']) {
            format!("\"{}\"", description.replace('"', "\"\""))
        } else {
            description.to_owned()
        };
        let time = self.time.strftime("%Y-%m-%d %H:%M:%S");
        self.out.push_str(&format!("{number},{code},{description},{quantity},{time},{price},{customer},{country}\n"));
    }
}

/// A price that belongs to a code: 42 pence to 19.41.
fn price_of(code: &str) -> i64 {
    42 + Chance::of(&code.to_ascii_uppercase()).below(1_900)
}
