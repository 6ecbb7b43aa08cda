// The page, put together.

themeButton(byId("theme"));
toolbar(byId("toolbar"));
for (const [id, build] of Object.entries({
  "chart-curves": curves,
  "chart-map": worldMap,
  "chart-shares": classShares,
  "chart-heat": heatMap,
  "chart-policies": policies,
  "chart-classes": classBars,
  "chart-confusion": confusionMatrices,
  "chart-calibration": calibration,
  "chart-examples": examples,
  "chart-traps": traps,
  "table-budgets": budgetTable,
  "chart-differences": familyDifferences,
  "chart-ranks": ranks,
  "chart-efficiency": efficiency,
  "table-fits": fits,
  "compared-note": comparedNote,
})) {
  const host = byId(id);
  if (host) build(host);
}
metricTable(byId("table-metrics"), byId("table-metrics-choosers"));
