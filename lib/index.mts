// The CommonJS build under ES module syntax: one copy of every class, however the package is loaded.
export * from './index.js';
