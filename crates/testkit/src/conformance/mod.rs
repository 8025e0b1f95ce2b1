//! The conformance list: what every implementation of [`Host`] and [`Adapter`] must do, as CouchDB
//! does it.
//!
//! The cases are written once and run on each implementation there is: in memory, on disk, through
//! HTTP, and on a real CouchDB. So nothing in them may assume what only one of them does. Update
//! sequences are opaque: they can be handed back and compared by [`Place::same_seq`], not counted.
//! What a cluster of CouchDB does not promise, a case asks of the others: [`Place::is_cluster`].
//!
//! One file per chapter of the API; [`scenarios`] holds the ones that were promised by number.
//!
//! A case is an async function with a [`Place`] to work in. Add yours to the table below, which a
//! test keeps complete, and it runs everywhere.
//!
//! [`Adapter`]: settee::adapter::Adapter

pub mod aging;
pub mod attachments;
pub mod bulk;
pub mod changes;
pub mod databases;
pub mod documents;
pub mod find;
pub mod functions;
pub mod listings;
pub mod maintenance;
pub mod revisions;
pub mod scenarios;
pub mod views;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use settee::Rev;
use settee::adapter::Host;
use settee::design::Stub;
use settee::prelude::*;
use settee::wire::Seq;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Chapter and function.
    pub name: &'static str,
    /// Runs it; panics if it fails.
    pub run: fn(Place) -> BoxFuture<'static, ()>,
}

/// A place for a case to work in, perhaps beside others.
#[derive(Debug, Clone)]
pub struct Place {
    couch: Couch,
    prefix: String,
    made: Arc<AtomicU64>,
    cluster: bool,
}

impl Place {
    /// A part of a host that no other case uses.
    pub fn new(host: Arc<dyn Host>) -> Place {
        let prefix = format!("t{:08x}", rand::random::<u32>());
        Place { couch: Couch::from_host(host), prefix, made: Arc::default(), cluster: false }
    }

    /// The same, in a cluster.
    pub fn in_cluster(host: Arc<dyn Host>) -> Place {
        Place { cluster: true, ..Place::new(host) }
    }

    /// Whether databases are in shards, each with sequences of its own, and nodes decide without
    /// waiting for each other. Even a single node of CouchDB is such a cluster.
    pub fn is_cluster(&self) -> bool {
        self.cluster
    }

    /// Checks that the changes of these documents came, in this order if there is one.
    #[track_caller]
    pub fn told<'a>(&self, came: impl IntoIterator<Item = &'a str>, ids: &[&str]) {
        let (mut came, mut ids) = (Vec::from_iter(came), ids.to_vec());
        if self.cluster {
            came.sort_unstable();
            ids.sort_unstable();
        }
        assert_eq!(came, ids);
    }

    /// Checks that two sequences mean the same place. A cluster has many texts for one, of which only
    /// the sum in front of them tells something.
    #[track_caller]
    pub fn same_seq(&self, one: &Seq, other: &Seq) {
        let sum = |seq: &Seq| seq.to_string().split('-').next().map(str::to_owned);
        match self.cluster {
            true => assert_eq!(sum(one), sum(other)),
            false => assert_eq!(one, other),
        }
    }

    /// The host.
    pub fn couch(&self) -> &Couch {
        &self.couch
    }

    /// The name of a database that is this case's own.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    /// A new database.
    pub async fn db(&self) -> Database {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.couch.create(&self.name(&number.to_string())).await.unwrap()
    }

    /// Compacts a database, and waits until that is done.
    pub async fn compact(&self, db: &Database) {
        db.compact().await.unwrap();
        // A cluster says so before it begins.
        if self.cluster {
            crate::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        compacted(db).await;
    }

    /// Removes the case's databases.
    pub async fn clean_up(&self) {
        for name in self.couch.all_dbs().await.unwrap() {
            if name.starts_with(&self.prefix) {
                self.couch.delete(&name).await.unwrap();
            }
        }
    }
}

/// Checks that something failed, and returns the reason given.
#[track_caller]
pub fn fails<T: Debug>(result: Result<T>, status: u16, name: &str) -> String {
    let error = result.expect_err("this should have failed");
    assert_eq!((error.status(), error.name()), (status, name), "{error:?}");
    error.reason().to_owned()
}

/// Checks that a write failed with a conflict.
#[track_caller]
pub fn conflicts<T: Debug>(result: Result<T>) {
    assert_eq!(fails(result, 409, "conflict"), "Document update conflict.");
}

/// Checks that there is nothing, and never was.
#[track_caller]
pub fn missing<T: Debug>(result: Result<T>) {
    assert_eq!(fails(result, 404, "not_found"), "missing");
}

/// Checks that there was something, which has been deleted.
#[track_caller]
pub fn deleted<T: Debug>(result: Result<T>) {
    assert_eq!(fails(result, 404, "not_found"), "deleted");
}

/// A document from JSON.
#[track_caller]
pub fn doc(json: Value) -> Document {
    json.into_document().unwrap()
}

/// A revision from text.
#[track_caller]
pub fn rev(text: &str) -> Rev {
    text.parse().unwrap()
}

/// Revisions from text.
#[track_caller]
pub fn revs<const N: usize>(texts: [&str; N]) -> Vec<Rev> {
    texts.map(rev).into()
}

/// A new database with a design document `d`; `None` where no JavaScript runs.
pub async fn with_design(place: &Place, mut design: Value) -> Option<Database> {
    let db = place.db().await;
    design["_id"] = "_design/d".into();
    db.put(doc(design)).await.unwrap();
    let probe = json!({"_id": "_design/probe", "shows": {"probe": "function() { return ''; }"}});
    db.put(doc(probe)).await.unwrap();
    match db.show("probe", &Stub::default()).await {
        Err(error) if error.name() == "unknown_query_language" => None,
        probed => {
            probed.unwrap();
            Some(db)
        }
    }
}

/// Writes revisions as they are elsewhere: `(rev, its ancestors with the nearest first)`.
pub async fn graft(db: &Database, id: &str, branch: &[&str], deleted: bool, members: Value) {
    let branch: Vec<Rev> = branch.iter().copied().map(rev).collect();
    let mut doc = doc(members);
    doc.id = Some(id.to_owned());
    doc.rev = Some(branch[0].clone());
    doc.deleted = deleted;
    doc.revisions = Some(settee::Revisions {
        start: branch[0].pos,
        ids: branch.into_iter().map(|rev| rev.id).collect(),
    });
    for result in db.bulk_docs([doc], false).await.unwrap() {
        result.map_err(|failed| failed.error).unwrap();
    }
}

/// Waits until a compaction that was started is done.
pub async fn compacted(db: &Database) {
    while db.info().await.unwrap().compact_running {
        crate::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Calls a macro with the table of all cases, by chapter.
#[macro_export]
macro_rules! for_all_cases {
    ($then:ident) => {
        $then! {
            find {
                documents_are_found_by_a_selector,
                a_stream_of_what_is_found_goes_over_all_pages,
                indexes_are_made_listed_and_removed,
            }
            aging {
                how_long_deletions_are_kept_can_be_set,
                changes_are_counted_by_time,
                changes_since_a_time_leave_nothing_out,
                old_deletions_are_purged,
            }
            attachments {
                an_attachment_is_read_as_it_was_written,
                an_attachment_creates_its_document,
                an_attachment_written_by_itself_comes_first,
                an_attachment_must_go_to_the_current_revision,
                what_is_missing_is_told_apart,
                replacing_and_removing_make_new_revisions,
                removing_what_is_not_there_makes_a_new_revision_all_the_same,
                a_document_keeps_its_attachments_by_their_stubs,
                a_stub_without_attachment_is_refused,
                inline_attachments_are_stored_with_the_document,
                contents_are_read_with_the_document_if_asked_for,
                texts_are_stored_compressed,
                what_comes_compressed_is_stored_as_it_comes,
                a_wrong_digest_is_refused,
                large_attachments_are_streamed_both_ways,
                a_body_that_fails_leaves_nothing,
                parts_are_read_of_an_attachment,
                contents_may_follow_the_document,
                contents_that_follow_may_name_themselves,
                contents_that_do_not_follow_are_an_error,
                any_text_is_a_name,
                local_documents_have_no_attachments,
                a_part_that_is_not_what_its_digest_says_is_refused,
                leaves_have_their_own_attachments,
                equal_contents_go_one_by_one,
                attachments_from_elsewhere_keep_their_generation,
                a_document_goes_elsewhere_as_it_is_stored,
            }
            bulk {
                results_come_in_the_order_of_the_documents,
                nothing_may_be_written,
                of_equal_ids_the_first_is_written,
                documents_are_created_changed_and_deleted_together,
                a_thousand_documents_are_written_at_once,
                revisions_from_elsewhere_never_conflict,
                many_revisions_are_read_at_once,
                the_latest_revisions_are_read_at_once,
            }
            changes {
                every_document_is_told_once_with_its_newest_change,
                an_empty_database_has_no_changes,
                a_reader_goes_on_where_it_was,
                a_reader_may_begin_now,
                a_sequence_that_is_none_is_refused,
                newest_first_if_descending,
                all_leaves_are_told_with_the_winner_first,
                a_losing_leaf_is_a_change_too,
                only_the_documents_asked_for_are_told,
                only_design_documents_are_told_if_asked_for,
                documents_come_along_when_asked_for,
                attachments_come_along_when_asked_for,
                a_long_feed_is_streamed_whole,
                a_live_feed_tells_what_is_there_and_then_what_happens,
                a_waiting_feed_is_woken,
                a_live_feed_from_now_misses_nothing_after_it_was_asked_for,
                a_live_feed_says_when_it_has_caught_up,
                a_live_feed_passes_over_what_is_filtered_out,
                a_live_feed_ends_at_its_limit,
                every_live_feed_sees_every_document,
                a_purged_document_is_not_told_any_more,
                who_follows_the_feed_ends_where_the_database_is,
            }
            databases {
                a_database_exists_from_its_creation_to_its_deletion,
                creating_a_database_twice_is_refused_and_harms_nothing,
                nothing_works_on_a_database_that_is_missing,
                a_handle_works_as_soon_as_its_database_exists,
                illegal_names_are_refused,
                legal_names_are_taken_as_they_are,
                names_are_listed_in_the_order_of_their_bytes,
                a_new_database_of_an_old_name_is_empty,
                databases_do_not_see_each_others_documents,
                info_counts_documents_and_deletions,
                the_update_sequence_moves_with_writes_only,
                security_is_kept_as_it_was_set,
                fresh_ids_differ_and_ascend,
                a_place_keeps_its_id,
                creation_change_and_deletion_are_told,
                what_happened_to_databases_can_be_read_later,
                a_feed_ends_when_its_database_is_deleted,
                every_operation_is_one_of_the_adapter,
                of_many_who_create_a_database_one_does,
                a_database_may_be_deleted_under_its_writers,
            }
            documents {
                a_document_is_read_as_it_was_written,
                revisions_are_the_same_as_couchdbs,
                the_same_edits_make_the_same_revisions_everywhere,
                a_write_must_be_based_on_the_current_revision,
                a_new_document_cannot_have_a_revision_already,
                the_same_content_makes_a_new_revision_all_the_same,
                what_is_deleted_is_told_from_what_never_was,
                a_deletion_needs_the_current_revision,
                a_deletion_keeps_the_members_it_is_given,
                a_document_created_again_continues_its_generations,
                a_document_may_be_deleted_before_it_exists,
                any_text_is_an_id,
                ids_beginning_with_an_underscore_are_reserved,
                unknown_members_beginning_with_an_underscore_are_refused,
                what_a_read_adds_may_be_written_back,
                reads_add_what_they_are_asked_for,
                large_documents_are_taken_up_to_the_limit,
                local_documents_have_no_history_and_are_not_listed,
                a_write_is_seen_by_the_reads_that_follow_it,
                of_many_writers_of_one_revision_one_wins,
                updates_that_try_again_lose_nothing,
                an_upsert_writes_whatever_is_there,
                a_copy_takes_members_and_attachments_along,
                several_documents_are_read_in_the_order_asked_for,
                a_deferred_write_is_visible_at_once_and_kept,
                a_write_that_nobody_waits_for_is_done_or_not_but_never_half,
                nesting_without_end_is_refused,
            }
            functions {
                s_132_a_show_makes_a_table_of_a_record,
                s_133_134_a_list_makes_a_page_of_any_view,
                u_037_a_list_has_all_the_options_of_its_view,
                u_038_an_update_makes_a_document_of_a_request,
                u_036_a_show_is_called_with_and_without_a_document,
                requests_are_shown_as_they_are_made,
                a_function_says_what_status_and_headers_a_response_has,
                what_a_function_throws_is_an_error,
                u_085_what_is_missing_is_an_error,
                a_long_list_is_streamed,
                rules_rewrite_paths,
                validation_judges_what_is_written,
            }
            listings {
                documents_are_listed_in_the_order_of_their_ids_bytes,
                rows_tell_the_winning_revision,
                ranges_include_their_ends_unless_told_otherwise,
                descending_ranges_begin_with_the_highest,
                limit_and_skip_cut_the_listing,
                deleted_documents_are_not_listed,
                keys_have_a_row_each_in_their_order,
                documents_come_along_when_asked_for,
                the_update_sequence_comes_along_when_asked_for,
                design_and_local_documents_have_their_own_listings,
                a_long_listing_is_streamed_whole,
                keys_and_a_range_contradict_each_other,
                a_listing_shows_one_moment,
            }
            maintenance {
                compaction_drops_old_revisions_and_nothing_else,
                writers_go_on_during_compaction,
                a_purged_document_never_was,
                purging_one_leaf_leaves_the_others,
                only_leaves_are_purged,
                a_purged_deletion_is_gone_too,
                purges_are_listed,
                how_many_purges_are_listed_can_be_set,
                writes_can_be_made_durable,
                indexes_can_be_cleaned_up,
                sizes_grow_with_what_is_stored,
            }
            revisions {
                revisions_from_elsewhere_are_stored_as_they_are,
                a_revision_that_is_here_already_changes_nothing,
                a_revision_from_elsewhere_may_come_alone,
                a_branch_joins_what_is_known_of_it,
                of_two_leaves_the_higher_one_wins,
                the_order_of_arrival_does_not_matter,
                a_deleted_leaf_wins_only_over_deleted_ones,
                deleting_the_winner_leaves_the_next_one,
                every_leaf_can_be_edited,
                a_conflict_is_resolved_by_deleting_the_losers,
                all_leaves_can_be_read_at_once,
                certain_revisions_can_be_read_at_once,
                the_latest_of_a_revision_are_the_leaves_behind_it,
                a_revision_asked_for_is_itself_unless_the_latest_is_wanted,
                what_is_missing_is_told_with_what_it_may_descend_from,
                the_history_is_remembered_up_to_its_limit,
                a_forgotten_history_does_not_conflict_with_itself,
                compaction_shows_in_the_revisions_status,
                revisions_of_any_text_are_taken,
                many_conflicts_and_a_long_history_are_kept,
            }
            scenarios {
                s_001_a_saved_document_is_found_until_it_is_deleted,
                s_003_a_handle_knows_its_name,
                s_004_a_database_is_not_created_twice,
                s_005_a_missing_database_is_neither_opened_nor_deleted,
                s_006_007_documents_are_read_changed_and_counted,
                s_008_a_stale_copy_cannot_delete,
                s_014_three_documents_are_written_at_once,
                s_015_one_document_is_listed,
                s_019_ids_may_be_made_by_the_caller,
                s_020_a_deferred_save_gives_no_revision,
                s_062_a_database_is_created_and_destroyed,
                s_063_064_saving_brings_the_document_up_to_date,
                s_065_an_image_is_attached_read_and_removed,
                s_080_082_put_get_and_overwrite,
                s_083_a_document_without_id_gets_one,
                s_084_an_unknown_document_is_a_404,
                s_085_087_handles_of_one_name_are_of_one_database,
                s_088_090_a_database_is_like_a_map,
                s_091_documents_come_in_many_forms,
                s_115_members_keep_their_order,
                s_117_118_saving_gives_id_and_revision,
                s_119_several_documents_are_read_in_order,
                s_120_a_batch_edits_and_deletes,
                s_121_123_a_conflict_is_resolved_with_theirs_at_hand,
                s_124_a_conflict_may_be_left_pending,
                s_125_conflicts_are_merged_or_forced_at_once,
                a_conflict_with_a_deletion_is_resolved_by_creating_anew,
                s_139_210_changes_are_read_by_pages,
                s_140_a_feed_tells_until_it_is_stopped,
                u_020_writes_that_conflict_and_one_that_does_not,
                u_023_ids_and_fields_may_be_of_any_script,
                u_024_what_is_no_document_is_refused_before_anything_is_asked,
                u_025_the_revisions_of_a_document_until_compaction,
                u_026_attachments_of_all_kinds,
                u_027_a_missing_attachment_is_none_or_an_error,
                u_028_one_stale_document_in_a_batch,
                u_029_all_or_nothing_makes_conflicts_of_conflicts,
                u_030_copies,
                u_031_032_one_change_is_told_at_once_or_later,
                u_033_one_document_is_purged,
                u_034_a_listing_of_keys_has_rows_for_missing_ones,
                u_042_conflicts_are_overwritten_and_then_there_are_none,
                u_061_two_attachments_and_two_missing_ones,
                u_063_a_live_feed_is_cancelled_by_dropping_it,
                u_064_of_an_unknown_document_every_revision_is_missing,
                u_065_creation_and_destruction_are_told,
                only_changes_that_match_a_selector_are_told,
            }
            views {
                a_view_has_a_row_for_whatever_is_emitted,
                a_view_shows_every_write_before_it,
                an_old_answer_may_do,
                ranges_begin_and_end_where_they_are_told_to,
                what_makes_no_sense_is_refused,
                documents_come_along,
                built_in_functions_reduce,
                sums_and_statistics_of_all_kinds,
                functions_reduce_and_reduce_again,
                a_document_that_fails_has_no_rows,
                what_cannot_be_compiled_is_an_error,
                functions_may_require_modules,
                design_documents_are_mapped_only_if_asked_for,
                a_changed_view_has_new_rows,
                raw_collation_orders_by_bytes,
                a_view_is_compacted_and_told_of,
                a_definition_keeps_its_design_document_up_to_date,
                s_011_018_persons_and_cities,
                s_126_131_employees_and_a_chronology,
                s_066_a_view_is_named_by_its_path,
                u_021_cities_come_and_go,
                u_022_keys_of_all_kinds_come_in_order,
                u_039_rows_come_by_pages,
            }
        }
    };
}

macro_rules! list {
    ($($chapter:ident { $($case:ident,)* })*) => {
        /// All cases.
        pub fn all() -> Vec<Case> {
            vec![$($(Case {
                name: concat!(stringify!($chapter), "::", stringify!($case)),
                run: |place| Box::pin($chapter::$case(place)),
            },)*)*]
        }
    };
}
for_all_cases!(list);

/// Makes a `#[test]` of each case, in a module for each chapter; to be passed to
/// [`for_all_cases`](crate::for_all_cases) where there is a function `run(Case)`.
#[macro_export]
macro_rules! case_tests {
    ($($chapter:ident { $($case:ident,)* })*) => {$(
        mod $chapter {
            $(
                #[test]
                fn $case() {
                    super::run($crate::conformance::Case {
                        name: concat!(stringify!($chapter), "::", stringify!($case)),
                        run: |place| {
                            Box::pin($crate::conformance::$chapter::$case(place))
                        },
                    });
                }
            )*
        }
    )*};
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A case that is missing from the table would never run, and nobody would notice.
    #[test]
    fn the_table_has_every_case() {
        let mut written = BTreeSet::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
        for entry in std::fs::read_dir(sources).unwrap() {
            let path = entry.unwrap().path();
            let chapter = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if chapter == "mod" {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for line in source.lines() {
                if let Some((case, _)) =
                    line.strip_prefix("pub async fn ").and_then(|rest| rest.split_once('('))
                {
                    written.insert(format!("{chapter}::{case}"));
                }
            }
        }
        let listed: BTreeSet<_> = super::all().iter().map(|case| case.name.to_owned()).collect();
        assert_eq!(listed, written);
    }
}
