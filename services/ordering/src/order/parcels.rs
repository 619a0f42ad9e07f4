//! Parcels and returns: who gets which line, what a parcel is worth, what comes back.

use std::collections::BTreeMap;

use contract::Money;

use super::{
    Event, Line, Order, Rejection, Return, ReturnLine, Shipment, ShipmentLine, ShipmentStatus, Status, amounts,
};

impl Order {
    /// The parcels of a held order: one a warehouse in the order of the allocations, lines without stock with the first.
    /// Their values add up to the total: each parcel takes its lines' share of the tax, the first one the shipping charge,
    /// the last one what rounding left.
    pub fn plan_shipments(&self, id: &str) -> Result<Vec<(String, Shipment)>, Rejection> {
        let mut parcels: Vec<(String, Vec<ShipmentLine>)> = vec![];
        let mut left: BTreeMap<&str, i64> =
            self.placed.lines.iter().map(|line| (line.id.as_str(), line.quantity)).collect();
        for allocation in &self.allocations {
            let mut quantity = allocation.quantity;
            for line in self.placed.lines.iter().filter(|line| line.stocked && line.sku == allocation.sku) {
                let open = left.entry(line.id.as_str()).or_default();
                let taken = quantity.min(*open);
                if taken > 0 {
                    *open -= taken;
                    quantity -= taken;
                    let entry = ShipmentLine { line: line.id.clone(), quantity: taken };
                    match parcels.iter_mut().find(|(warehouse, _)| *warehouse == allocation.warehouse) {
                        Some((_, lines)) => lines.push(entry),
                        None => parcels.push((allocation.warehouse.clone(), vec![entry])),
                    }
                }
            }
        }
        let unstocked = self
            .placed
            .lines
            .iter()
            .filter(|line| !line.stocked)
            .map(|line| ShipmentLine { line: line.id.clone(), quantity: line.quantity });
        match parcels.first_mut() {
            Some((_, lines)) => lines.extend(unstocked),
            None => parcels.push((String::new(), unstocked.collect())),
        }
        self.value_shipments(id, parcels)
    }

    fn value_shipments(
        &self,
        id: &str,
        parcels: Vec<(String, Vec<ShipmentLine>)>,
    ) -> Result<Vec<(String, Shipment)>, Rejection> {
        let total = self.placed.total;
        let mut given = Money::zero(total.currency);
        let last = parcels.len().saturating_sub(1);
        let mut planned = vec![];
        for (index, (warehouse, lines)) in parcels.into_iter().enumerate() {
            let value = if index == last {
                total.checked_sub(given).map_err(amounts)?
            } else {
                let mut net = Money::zero(total.currency);
                for entry in &lines {
                    net = net.checked_add(self.net(&entry.line, entry.quantity)?).map_err(amounts)?;
                }
                let charge = if index == 0 { self.placed.shipping } else { Money::zero(total.currency) };
                self.with_tax(net.checked_add(charge).map_err(amounts)?)
            };
            given = given.checked_add(value).map_err(amounts)?;
            let suffix = warehouse.strip_prefix("warehouses/").unwrap_or("none");
            let name = format!("shipments/{id}-{suffix}");
            planned.push((name, Shipment { warehouse, lines, value, status: ShipmentStatus::Created }));
        }
        Ok(planned)
    }

    /// What is captured when a parcel is packed: its value less what was taken out of it since.
    pub fn capture_value(&self, shipment: &str) -> Result<Money, Rejection> {
        let parcel = self.shipments.get(shipment).ok_or_else(|| Rejection::UnknownShipment(shipment.to_owned()))?;
        let mut value = parcel.value;
        for returned in self.returns.values() {
            for line in &returned.lines {
                for (from, quantity) in &line.withdrawn {
                    if from == shipment {
                        let back = self.with_tax(self.net(&line.line, *quantity)?);
                        value = value.checked_sub(back).map_err(amounts)?;
                    }
                }
            }
        }
        Ok(Money { minor: value.minor.max(0), ..value })
    }

    /// One line by its id.
    pub(crate) fn line(&self, id: &str) -> Result<&Line, Rejection> {
        self.placed.lines.iter().find(|line| line.id == id).ok_or_else(|| Rejection::UnknownLine(id.to_owned()))
    }

    fn net(&self, line: &str, quantity: i64) -> Result<Money, Rejection> {
        self.line(line)?.unit_price.checked_mul(quantity).map_err(amounts)
    }

    /// A net amount with its share of the order's tax, rounded down: shares never add up to more than the tax.
    fn with_tax(&self, net: Money) -> Money {
        let taxed = i128::from(self.placed.subtotal.minor) + i128::from(self.placed.shipping.minor);
        if taxed <= 0 {
            return net;
        }
        let tax = i128::from(self.placed.tax.minor) * i128::from(net.minor) / taxed;
        Money { minor: net.minor.saturating_add(i64::try_from(tax).unwrap_or(0)), ..net }
    }

    /// Units of a line that came back or are on their way.
    pub(crate) fn returned(&self, line: &str) -> i64 {
        let lines = self.returns.values().flat_map(|returned| &returned.lines);
        lines.filter(|returned| returned.line == line).map(|returned| returned.quantity).sum()
    }
}

/// The return of these (line, quantity): refused if more than what was bought and did not come back yet. `with` fills in
/// what does not follow from the order.
pub(super) fn return_lines(
    order: &Order,
    id: String,
    asked: &[(String, i64)],
    with: impl FnOnce(&mut Return),
) -> Result<Vec<Event>, Rejection> {
    if order.returns.contains_key(&id) {
        return Ok(vec![]);
    }
    match order.status {
        Status::Confirmed | Status::PartiallyShipped | Status::Shipped | Status::Delivered => {}
        status @ (Status::Pending
        | Status::AwaitingPaymentAction
        | Status::Closed
        | Status::Rejected
        | Status::Cancelling
        | Status::Cancelled
        | Status::PartiallyCancelled) => return Err(Rejection::WrongState { status, verb: "have lines returned" }),
    }
    let nothing = Money::zero(order.currency());
    let mut taken: BTreeMap<&str, i64> = BTreeMap::new();
    let mut lines = vec![];
    for (line, quantity) in asked {
        let bought = order.line(line)?.quantity;
        let before = taken.entry(line).or_default();
        let left = bought - order.returned(line) - *before;
        if *quantity < 1 || *quantity > left {
            return Err(Rejection::TooMany { line: line.clone(), left, asked: *quantity });
        }
        *before += quantity;
        let amount = order.with_tax(order.net(line, *quantity)?);
        lines.push(ReturnLine { line: line.clone(), quantity: *quantity, amount, withdrawn: vec![] });
    }
    let sum = lines.iter().try_fold(nothing, |sum, line| sum.checked_add(line.amount)).map_err(amounts)?;
    let earlier = order.returns.values().try_fold(nothing, |sum, returned| sum.checked_add(returned.amount));
    let room = order.placed.total.checked_sub(earlier.map_err(amounts)?).map_err(amounts)?;
    let mut returned = Return {
        lines,
        amount: Money { minor: sum.minor.min(room.minor), ..sum },
        restock: false,
        reason: String::new(),
        actor: String::new(),
        external_reference: String::new(),
        external_time: None,
        refunded: false,
        complete: false,
    };
    with(&mut returned);
    Ok(vec![Event::LinesReturned { id, returned: Box::new(returned) }])
}

/// Takes returned units out of parcels that are not packed yet, and notes from which.
pub(super) fn withdraw(parcels: &mut BTreeMap<String, Shipment>, returned: &mut Return) {
    for line in &mut returned.lines {
        let mut left = line.quantity - line.withdrawn.iter().map(|(_, quantity)| quantity).sum::<i64>();
        for (name, parcel) in parcels.iter_mut().filter(|(_, parcel)| parcel.status == ShipmentStatus::Created) {
            for entry in parcel.lines.iter_mut().filter(|entry| entry.line == line.line) {
                let taken = entry.quantity.min(left);
                if taken > 0 {
                    entry.quantity -= taken;
                    left -= taken;
                    line.withdrawn.push((name.clone(), taken));
                }
            }
        }
    }
}
