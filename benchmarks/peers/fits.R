# One fit by an R package: Rscript fits.R PACKAGE FOLDER TOLERANCE MOST_ITERATIONS
# FOLDER holds values.bin (m), basis.bin (m x q, column by column) and posterior.bin (m x K) as float64, and start.txt
# with three lines of K numbers: weights, means, sigmas. Written to standard output: lines of a name and numbers.
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[2]
tolerance <- as.numeric(arguments[3])
most <- as.integer(arguments[4])

read <- function(name) {
  path <- file.path(folder, name)
  readBin(path, "double", file.size(path) / 8)
}
first <- as.matrix(read.table(file.path(folder, "start.txt")))
k <- ncol(first)
z <- read("values.bin")
m <- length(z)
basis <- matrix(read("basis.bin"), nrow = m)
q <- ncol(basis)
size <- log(sd(z)) + 1.4 # of the log-likelihood of a pixel, for rules that are relative to it

timed <- function(work) {
  seconds <- system.time(out <- work())[["elapsed"]]
  cat("seconds", seconds, "\n")
  out
}
tell <- function(name, ...) cat(name, format(c(...), digits = 17), "\n")

flexmix <- function() {
  library(flexmix)
  data <- data.frame(z = z, basis)
  fixed <- as.formula(paste("~", paste(names(data)[-1], collapse = " + ")))
  posterior <- matrix(read("posterior.bin"), nrow = m)
  control <- list(tolerance = tolerance / size, iter.max = most, minprior = 0)
  fit <- timed(function() {
    flexmix::flexmix(z ~ 1, data = data, k = k, cluster = posterior, control = control,
      model = FLXMRglmfix(fixed = fixed, varFix = FALSE))
  })
  found <- parameters(fit)
  rows <- rownames(found)
  tell("weights", prior(fit))
  tell("means", found[grep("Intercept", rows), ])
  tell("sigmas", found[rows == "sigma", ])
  tell("slopes", found[match(paste0("coef.X", 1:q), rows), 1])
  tell("iterations", fit@iter)
}

mclust <- function() {
  library(mclust)
  start <- list(pro = first[1, ], mean = first[2, ],
    variance = list(modelName = "V", d = 1, G = k, sigmasq = first[3, ]^2))
  control <- emControl(tol = tolerance / size, itmax = most)
  fit <- timed(function() em(z, "V", start, control = control))
  tell("weights", fit$parameters$pro)
  tell("means", fit$parameters$mean)
  tell("sigmas", sqrt(fit$parameters$variance$sigmasq))
  tell("iterations", attr(fit, "info")["iterations"])
}

normalmix <- function() {
  library(mixtools)
  fit <- timed(function() {
    normalmixEM(z, first[1, ], first[2, ], first[3, ], k = k, epsilon = tolerance * m, maxit = most, maxrestarts = 0)
  })
  cat("\n")
  tell("weights", fit$lambda)
  tell("means", fit$mu)
  tell("sigmas", fit$sigma)
  tell("iterations", length(fit$all.loglik) - 1)
}

regmix <- function() {
  library(mixtools)
  beta <- rbind(first[2, ], matrix(0, q, k))
  fit <- timed(function() {
    regmixEM(z, basis, first[1, ], beta, first[3, ], k = k, epsilon = tolerance * m, maxit = most)
  })
  cat("\n")
  tell("weights", fit$lambda)
  tell("means", fit$beta[1, ])
  tell("sigmas", fit$sigma)
  tell("slopes", t(fit$beta[-1, ])) # column by column: all slopes of the first term, then of the second
  tell("iterations", length(fit$all.loglik) - 1)
}

suppressPackageStartupMessages(get(arguments[1])())
