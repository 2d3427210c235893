// The CommonJS build under ES module syntax, as in index.mts.
export * from './tfjs.js';
