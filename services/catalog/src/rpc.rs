//! From wire to command to log and back. Nothing is decided here.

use std::sync::Arc;

use contract::Currency;
use contracts::catalog::v1 as proto;
use contracts::catalog::v1::catalog_service_server::CatalogService;
use log::Log;
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::filter::{Filter, Grammar};
use crate::product::{Command, Draft, Rejection, State, price_in};
use crate::products::{Author, Order, Products};
use crate::recent::Recent;
use crate::search::{Counts, Search};
use crate::signature::{Key, Statement};
use crate::store::Stored;
use crate::{Config, import, store as rows, wire, words};

const DEFAULT_PAGE: u32 = 50;
/// Pages that are longer are not remembered: they are asked for by those who read all of them once.
const REMEMBERED_PAGE: u32 = DEFAULT_PAGE;

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) products: Arc<dyn Products>,
    /// The log whose rows lists and searches read.
    pub(crate) finder: Log<proto::Event>,
    /// Pages of lists by what was asked.
    pub(crate) pages: Arc<Recent<Arc<Vec<Stored>>>>,
    /// Facets and totals by search.
    pub(crate) counts: Arc<Recent<Arc<Counts>>>,
    pub(crate) key: Arc<Key>,
    pub(crate) config: Arc<Config>,
}

impl Rpc {
    /// Products by name, in this order; the first that is missing is named.
    async fn by_name(&self, names: Vec<String>) -> Result<Vec<Arc<Stored>>, Error> {
        let found = self.products.by_name(&names).await?;
        let missing = |(name, found): (&String, Option<Arc<Stored>>)| found.ok_or_else(|| Error::Missing(name.clone()));
        names.iter().zip(found).map(missing).collect()
    }

    /// The products that are for sale and have these SKUs, in this order; the first SKU that is missing is named.
    async fn by_sku(&self, skus: &[String]) -> Result<Vec<Arc<Stored>>, Error> {
        let found = self.products.by_sku(skus).await?;
        let for_sale = |(sku, found): (&String, Option<Arc<Stored>>)| {
            let found = found.filter(|stored| stored.product.state == State::Active);
            found.ok_or_else(|| Error::UnknownSku(sku.clone()))
        };
        skus.iter().zip(found).map(for_sale).collect()
    }

    /// The products of a page, and one more if there is one. `said` is the filter in the caller's words.
    async fn page(
        &self,
        state: State,
        said: &str,
        filter: Filter,
        after: String,
        limit: u32,
    ) -> Result<Arc<Vec<Stored>>, Error> {
        let key = format!("{state:?}\n{limit}\n{after}\n{said}");
        let seen = self.pages.head();
        if let Some(page) = self.pages.get(&key) {
            return Ok(page);
        }
        let read = async move |tx: &mut Tx| rows::list(tx, state, &filter.facets, &after, limit + 1).await;
        let page = Arc::new(self.finder.store().read(read).await?);
        if limit <= REMEMBERED_PAGE {
            self.pages.keep(seen, &key, Arc::clone(&page));
        }
        Ok(page)
    }

    /// One command to one product, answered with the product as it then is.
    async fn command(
        &self,
        call: Call,
        site: &'static Site,
        request: Option<log::Request>,
        order: Order,
    ) -> Result<Response<proto::Product>, Status> {
        let (products, author) = (Arc::clone(&self.products), author(&call));
        let product = call.detached(async move { Ok(products.command(site, author, request, order).await?) }).await?;
        Ok(Response::new(product))
    }

    fn currency(&self, code: &str) -> Result<Currency, Status> {
        if code.is_empty() {
            return Ok(self.config.currency);
        }
        code.parse().map_err(|error: contract::MoneyError| status::invalid_argument("currency_code", error.to_string()))
    }
}

/// Who makes a call that changes something.
pub(crate) fn author(call: &Call) -> Author {
    Author { meta: call.meta(), actor: call.subject().map(|subject| subject.id.clone()).unwrap_or_default() }
}

#[tonic::async_trait]
impl CatalogService for Rpc {
    async fn get_product(
        &self,
        request: Request<proto::GetProductRequest>,
    ) -> Result<Response<proto::Product>, Status> {
        let found = self.by_name(vec![request.into_inner().name]).await?;
        let product = found.first().map(|stored| wire::product(stored, self.config.currency));
        Ok(Response::new(product.unwrap_or_default()))
    }

    async fn list_products(
        &self,
        request: Request<proto::ListProductsRequest>,
    ) -> Result<Response<proto::ListProductsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let filter = Filter::parse(&list.filter, Grammar::List).map_err(wrong_filter)?;
        let state = filter.state.unwrap_or(State::Active);
        if state == State::Archived && !call.is_privileged() {
            return Err(status::permission_denied(
                "OPERATORS_ONLY",
                "archived products are listed for operators alone",
            ));
        }
        let after = call.cursor(&list.filter, &list.page_token)?.unwrap_or_default();
        let limit = page_size(list.page_size);
        let found = self.page(state, &list.filter, filter, after, limit).await?;
        let shown = found.get(..limit as usize).unwrap_or(&found);
        let cursor = shown.last().filter(|_| shown.len() < found.len()).map(|last| last.name.as_str());
        Ok(Response::new(proto::ListProductsResponse {
            next_page_token: call.page_token(&list.filter, cursor),
            products: shown.iter().map(|stored| wire::product(stored, self.config.currency)).collect(),
        }))
    }

    async fn search_products(
        &self,
        request: Request<proto::SearchProductsRequest>,
    ) -> Result<Response<proto::SearchProductsResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let currency = self.currency(&asked.currency_code)?;
        let order = asked.order_by();
        let filter = Filter::parse(&asked.filter, Grammar::Search(currency)).map_err(wrong_filter)?;
        let words = words::query(&asked.query);
        // Words were said, but nothing in them can be found.
        let hopeless = words.is_none() && !asked.query.trim().is_empty();
        let key = format!("{currency}\n{}\n{}", asked.query, asked.filter);
        let list = format!("{key}\n{}", order.as_str_name());
        let offset = call.cursor(&list, &asked.page_token)?.and_then(|cursor| cursor.parse().ok()).unwrap_or(0_u32);
        if hopeless {
            return Ok(Response::new(proto::SearchProductsResponse::default()));
        }
        let limit = page_size(asked.page_size);
        let search = Search { words, filter, currency };
        let (seen, known) = (self.counts.head(), self.counts.get(&key));
        let remembered = known.clone();
        let (mut found, counts) = self
            .finder
            .store()
            .read(async move |tx: &mut Tx| {
                let found = search.page(tx, order, offset, limit + 1).await?;
                let counts = match &known {
                    Some(counts) => Arc::clone(counts),
                    None => Arc::new(search.count(tx).await?),
                };
                Ok::<_, Error>((found, counts))
            })
            .await?;
        if remembered.is_none() {
            self.counts.keep(seen, &key, Arc::clone(&counts));
        }
        let cursor = cut(&mut found, limit).then(|| offset.saturating_add(limit).to_string());
        Ok(Response::new(proto::SearchProductsResponse {
            products: found.iter().map(|stored| wire::product(stored, currency)).collect(),
            facets: counts.facets.clone(),
            total_size: i32::try_from(counts.total).unwrap_or(i32::MAX),
            next_page_token: call.page_token(&list, cursor.as_deref()),
        }))
    }

    async fn batch_get_variants(
        &self,
        request: Request<proto::BatchGetVariantsRequest>,
    ) -> Result<Response<proto::BatchGetVariantsResponse>, Status> {
        let asked = request.into_inner();
        let currency = self.config.currency;
        let mut owners = Vec::with_capacity(asked.names.len());
        for name in &asked.names {
            let (product, _) = wire::variant_parts(name).ok_or_else(|| Error::Missing(name.clone()))?;
            owners.push(product.to_owned());
        }
        let found = self.products.by_name(&owners).await?;
        let mut variants = Vec::with_capacity(asked.names.len() + asked.skus.len());
        for (name, stored) in asked.names.iter().zip(found) {
            let id = wire::variant_parts(name).map(|(_, id)| id).unwrap_or_default();
            let each = stored.as_ref().and_then(|stored| {
                stored.product.variants.iter().find(|each| each.id == id).map(|each| (stored, each))
            });
            let (stored, each) = each.ok_or_else(|| Error::Missing(name.clone()))?;
            variants.push(wire::lone_variant(stored, each, currency));
        }
        for (sku, stored) in asked.skus.iter().zip(self.by_sku(&asked.skus).await?) {
            let each = stored.product.variant(sku).ok_or_else(|| Error::UnknownSku(sku.clone()))?;
            variants.push(wire::lone_variant(&stored, each, currency));
        }
        Ok(Response::new(proto::BatchGetVariantsResponse { variants }))
    }

    async fn create_product(
        &self,
        request: Request<proto::CreateProductRequest>,
    ) -> Result<Response<proto::Product>, Status> {
        let call = Call::of(&request)?;
        let create = request.into_inner();
        let request = call.request(&create, &create.request_id).filter(|_| !create.validate_only);
        if !create.product_id.is_empty() && !wire::is_id(&create.product_id) {
            return Err(status::invalid_argument("product_id", "must be letters, digits, '.', '_', '~' or '-'"));
        }
        let id =
            Some(create.product_id).filter(|id| !id.is_empty()).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        // Names are the service's here, also those of variants inside of a name the caller thought of.
        let product = proto::Product { name: String::new(), ..create.product.unwrap_or_default() };
        let draft = draft(&product)?;
        let command = Command::Create(Draft { state: None, ..draft });
        let order =
            Order { name: format!("products/{id}"), command, etag: String::new(), dry_run: create.validate_only };
        self.command(call, site!("catalog.create_product"), request, order).await
    }

    async fn update_product(
        &self,
        request: Request<proto::UpdateProductRequest>,
    ) -> Result<Response<proto::Product>, Status> {
        let call = Call::of(&request)?;
        let update = request.into_inner();
        let request = call.request(&update, &update.request_id).filter(|_| !update.validate_only);
        let mut product = update.product.unwrap_or_default();
        if !wire::is_product_name(&product.name) {
            return Err(status::invalid_argument("product.name", "is no name of a product"));
        }
        let mask = update.update_mask.map(|mask| mask.paths).unwrap_or_default();
        if !mask.is_empty() && !mask.iter().any(|path| path == "variants" || path == "*") {
            // What the mask does not name is not looked at, so it cannot be wrong.
            product.variants.clear();
        }
        let draft = draft(&product)?;
        let command = wire::update(draft, &mask)
            .map_err(|path| status::invalid_argument("update_mask", format!("has no field {path}")))?;
        let order = Order { name: product.name, command, etag: product.etag, dry_run: update.validate_only };
        self.command(call, site!("catalog.update_product"), request, order).await
    }

    async fn import_products(
        &self,
        request: Request<Streaming<proto::ImportProductsRequest>>,
    ) -> Result<Response<proto::ImportProductsResponse>, Status> {
        let call = Call::of(&request)?;
        let reply = import::run(&self.products, &call, request.into_inner(), self.config.import_batch.max(1)).await?;
        Ok(Response::new(reply))
    }

    async fn resolve_prices(
        &self,
        request: Request<proto::ResolvePricesRequest>,
    ) -> Result<Response<proto::ResolvePricesResponse>, Status> {
        let asked = request.into_inner();
        let currency = self.currency(&asked.currency_code)?;
        let time = self.finder.store().clock().now();
        let found = self.by_sku(&asked.skus).await?;
        let mut prices = Vec::with_capacity(found.len());
        let mut statement = Statement { currency, time, prices: Vec::with_capacity(found.len()) };
        for (sku, stored) in asked.skus.iter().zip(&found) {
            let variant = stored.product.variant(sku).ok_or_else(|| Error::UnknownSku(sku.clone()))?;
            let price =
                price_in(&variant.prices, currency).ok_or_else(|| Error::NoPrice { sku: sku.clone(), currency })?;
            statement.prices.push((sku, price.minor));
            prices.push(wire::resolved(stored, variant, price));
        }
        Ok(Response::new(proto::ResolvePricesResponse {
            prices,
            resolve_time: Some(time.into()),
            key_id: self.key.id.clone(),
            signature: self.key.sign(&statement),
        }))
    }
}

fn draft(product: &proto::Product) -> Result<Draft, Error> {
    wire::draft(product)
        .map_err(|problems| Error::Rejected { name: product.name.clone(), rejection: Rejection::Invalid(problems) })
}

fn wrong_filter(problem: String) -> Status {
    status::invalid_argument("filter", problem)
}

fn page_size(asked: i32) -> u32 {
    u32::try_from(asked).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE)
}

/// Cuts a list that was read one too long; true if there was more.
fn cut<T>(items: &mut Vec<T>, limit: u32) -> bool {
    let limit = limit as usize;
    let more = items.len() > limit;
    items.truncate(limit);
    more
}
